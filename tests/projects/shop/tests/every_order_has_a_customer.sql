select orders.order_id
from {{ ref('orders') }} as orders
left join {{ ref('customers') }} as customers using (customer_id)
where customers.customer_name is null
