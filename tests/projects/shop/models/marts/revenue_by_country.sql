select
    customers.country_name,
    date_trunc('month', orders.ordered_on)::date as month,
    sum(orders.amount) as revenue
from {{ ref('orders') }} as orders
inner join {{ ref('customers') }} as customers using (customer_id)
where orders.status = 'completed'
group by all
