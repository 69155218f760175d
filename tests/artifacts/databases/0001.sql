BEGIN TRANSACTION;
CREATE TABLE environment (
	id INTEGER NOT NULL, 
	integration_id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	folded VARCHAR(200) NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (integration_id, folded), 
	FOREIGN KEY(integration_id) REFERENCES integration (id)
);
INSERT INTO "environment" VALUES(1,1,'PROD','prod','2026-11-24 17:18:44.056447');
INSERT INTO "environment" VALUES(2,2,'STAGING','staging','2026-11-24 17:18:44.278744');
CREATE TABLE file (
	id INTEGER NOT NULL, 
	environment_id INTEGER NOT NULL, 
	token_id INTEGER NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	created_at DATETIME NOT NULL, 
	sha256 VARCHAR(64), 
	size_bytes INTEGER, 
	uploaded_at DATETIME, 
	refusal TEXT, 
	dbt_version TEXT, 
	schema_version INTEGER, 
	project_name TEXT, 
	node_count INTEGER, 
	model_count INTEGER, 
	generated_at DATETIME, 
	invocation_id TEXT, 
	"commit" TEXT, 
	branch TEXT, 
	build_url TEXT, 
	ingestion VARCHAR(20), 
	changes TEXT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(environment_id) REFERENCES environment (id), 
	FOREIGN KEY(token_id) REFERENCES token (id)
);
INSERT INTO "file" VALUES(1,1,1,'manifest','2026-11-24 17:18:44.576293','7f3e834fee3c696a1ff8fb4391824c853a391b5aa974a997bbc1feea1b220d85',7094,'2026-11-24 17:18:44.611753',NULL,'1.11.16',12,'shop',2,2,'2026-11-20 10:00:00.000000',NULL,NULL,NULL,NULL,'Completed','{"added":1,"removed":0,"changed":0,"names":{"added":["big"]}}');
INSERT INTO "file" VALUES(2,1,1,'manifest','2026-11-24 17:18:48.984141','42860a18cfac960f5f39709e66fa3a1f9590d16b28bf46719f4ba60b3efa173a',6519,'2026-11-24 17:18:49.005854',NULL,'1.11.16',12,'shop',2,2,'2026-11-21 10:00:00.000000',NULL,NULL,NULL,NULL,'Completed','{"added": 1, "removed": 1, "changed": 0, "names": {"added": ["shop.customers"], "removed": ["shop.orders"], "changed": []}}');
CREATE TABLE ingestion (
	id INTEGER NOT NULL, 
	environment_id INTEGER NOT NULL, 
	status VARCHAR(20) NOT NULL, 
	created_at DATETIME NOT NULL, 
	lease_until DATETIME, 
	attempts INTEGER NOT NULL, 
	finished_at DATETIME, 
	log TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(environment_id) REFERENCES environment (id)
);
INSERT INTO "ingestion" VALUES(1,1,'Completed','2026-11-24 17:18:44.631228',NULL,1,'2026-11-24 17:18:44.973070','manifest.json (file 1): accepted, 2 models');
INSERT INTO "ingestion" VALUES(2,1,'Completed','2026-11-24 17:18:49.017564',NULL,1,'2026-11-24 17:18:50.196866','manifest.json (file 2): accepted, 2 models');
CREATE TABLE instance (
	id INTEGER NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	signing_key BLOB NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "instance" VALUES(1,'acme',X'8D571D0A040176D2C3CD30CDAE6242A84746B2EE2A18697DA1182D11EF1980DC','2026-11-24 17:18:43.807221');
CREATE TABLE integration (
	id INTEGER NOT NULL, 
	instance_id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	integration_type VARCHAR(20) NOT NULL, 
	created_at DATETIME NOT NULL, 
	last_modified_at DATETIME NOT NULL, 
	last_file_upload_time DATETIME, 
	project_name TEXT, 
	PRIMARY KEY (id), 
	UNIQUE (instance_id, name), 
	FOREIGN KEY(instance_id) REFERENCES instance (id)
);
INSERT INTO "integration" VALUES(1,1,'shop','dbt_core','2026-11-24 17:18:44.054875','2026-11-24 17:18:49.006476','2026-11-24 17:18:49.005854','shop');
INSERT INTO "integration" VALUES(2,1,'Shop','dbt_core','2026-11-24 17:18:44.278145','2026-11-24 17:18:44.278958',NULL,NULL);
CREATE TABLE publication (
	id INTEGER NOT NULL, 
	environment_id INTEGER NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	file_id INTEGER NOT NULL, 
	since DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(environment_id) REFERENCES environment (id), 
	FOREIGN KEY(file_id) REFERENCES file (id)
);
INSERT INTO "publication" VALUES(1,1,'manifest',1,'2026-11-24 17:18:44.611753');
INSERT INTO "publication" VALUES(2,1,'manifest',2,'2026-11-24 17:18:49.005854');
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(1);
CREATE TABLE token (
	id INTEGER NOT NULL, 
	instance_id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	scopes VARCHAR(40) NOT NULL, 
	integration_id INTEGER, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	last_used_at DATETIME, 
	revoked_at DATETIME, 
	PRIMARY KEY (id), 
	FOREIGN KEY(instance_id) REFERENCES instance (id), 
	UNIQUE (sha256), 
	FOREIGN KEY(integration_id) REFERENCES integration (id)
);
INSERT INTO "token" VALUES(1,1,'first','eb79f42b057e3a7535f8f0f759ab7adb9f10763d95b4c7d047cf0f5bc189b31b','admin',NULL,'2026-11-24 17:18:43.807845',NULL,'2026-11-24 17:18:44.052141',NULL);
CREATE INDEX file_of_blob ON file (sha256);
CREATE INDEX file_of_environment ON file (environment_id, kind, uploaded_at);
CREATE INDEX ingestion_of_environment ON ingestion (environment_id, id);
CREATE INDEX ingestion_to_do ON ingestion (status, lease_until);
CREATE INDEX publication_of_environment ON publication (environment_id, kind, id);
CREATE INDEX publication_of_file ON publication (file_id);
COMMIT;
