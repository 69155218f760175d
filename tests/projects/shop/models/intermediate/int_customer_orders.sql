{{ config(materialized='view') }}

select
    orders.customer_id,
    min(orders.ordered_on) as first_ordered_on,
    count(*) as order_count,
    coalesce(sum(payments.amount), 0) as amount
from {{ ref('stg_orders') }} as orders
left join {{ ref('int_order_payments') }} as payments using (order_id)
where orders.status <> 'returned'
group by orders.customer_id
