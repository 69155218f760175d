select
    customers.customer_id,
    customers.customer_name,
    countries.country_name,
    summary.first_ordered_on,
    coalesce(summary.order_count, 0) as order_count,
    coalesce(summary.amount, 0) as amount
from {{ ref('stg_customers') }} as customers
left join {{ ref('countries') }} as countries using (country_code)
left join {{ ref('int_customer_orders') }} as summary using (customer_id)
