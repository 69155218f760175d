{#- Simulates the shop's hourly loader. Run it with `dbt run-operation load_raw`. -#}
{% macro load_raw() %}
  {% do run_query("create schema if not exists raw") %}
  {% do run_query("""
    create or replace table raw.customers as
    select *, now()::timestamp as loaded_at
    from (values
      (1, 'Ada', 'PT'), (2, 'Bram', 'NL'), (3, 'Chidi', 'NG'), (4, 'Dora', 'PT'), (5, 'Emil', 'NL')
    ) as t(id, name, country_code)
  """) %}
  {% do run_query("""
    create or replace table raw.orders as
    select *, now()::timestamp as loaded_at
    from (values
      (101, 1, date '2026-10-01', 'completed'), (102, 2, date '2026-10-02', 'completed'),
      (103, 1, date '2026-10-05', 'returned'),  (104, 3, date '2026-10-09', 'completed'),
      (105, 4, date '2026-10-12', 'completed'), (106, 5, date '2026-10-12', 'placed')
    ) as t(id, customer_id, ordered_on, status)
  """) %}
  {% do run_query("""
    create or replace table raw.payments as
    select *, now()::timestamp as loaded_at
    from (values
      (1, 101, 'card', 1250), (2, 102, 'card', 4000), (3, 102, 'voucher', 500),
      (4, 103, 'transfer', 2100), (5, 104, 'card', 990), (6, 105, 'transfer', 7300)
    ) as t(id, order_id, method, amount_cents)
  """) %}
{% endmacro %}
