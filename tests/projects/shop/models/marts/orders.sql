{{ config(materialized='incremental', unique_key='order_id') }}

select
    orders.order_id,
    orders.customer_id,
    orders.ordered_on,
    orders.status,
    coalesce(payments.amount, 0) as amount
from {{ ref('stg_orders') }} as orders
left join {{ ref('int_order_payments') }} as payments using (order_id)
{% if is_incremental() %}
where orders.ordered_on >= (select coalesce(max(ordered_on), date '1970-01-01') from {{ this }})
{% endif %}
