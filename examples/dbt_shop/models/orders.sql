select * from (values (1, 1250), (2, 340), (3, null)) as orders (id, cents)
