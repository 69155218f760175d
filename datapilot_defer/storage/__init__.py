"""What an instance keeps: records in a database, blobs in an object store.

Nothing outside this package knows which database or store that is. Every replica of an instance may share them;
nothing is kept in the process.
"""
