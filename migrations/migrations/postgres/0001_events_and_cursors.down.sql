drop table cursors;
drop table events;
