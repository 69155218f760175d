select customers.country_code
from {{ ref('stg_customers') }} as customers
left join {{ ref('countries') }} as countries using (country_code)
where countries.country_name is null
