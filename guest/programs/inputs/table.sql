CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, amount REAL, note TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO orders SELECT i, i * 7919 % 997, (i * 31 % 1000) / 8.0, 'order ' || hex(i * i) FROM n;
COMMIT;
CREATE INDEX by_customer ON orders (customer, amount);
SELECT customer, count(*), sum(amount), max(note) FROM orders
    GROUP BY customer ORDER BY sum(amount) DESC LIMIT 20;
SELECT count(*) FROM orders a JOIN orders b ON b.id = a.id + 1 WHERE a.customer < b.customer;
UPDATE orders SET amount = amount * 2 WHERE customer % 3 = 0;
DELETE FROM orders WHERE note LIKE '%7F%';
SELECT count(*), sum(amount), avg(length(note)) FROM orders;
SELECT a.customer, sum(b.amount) FROM orders a JOIN orders b USING (customer)
    WHERE a.id < 800 GROUP BY a.customer ORDER BY 2, 1 LIMIT 10;
PRAGMA integrity_check;
