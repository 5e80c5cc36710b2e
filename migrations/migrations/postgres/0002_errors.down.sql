drop table consumer_errors_attempts;
drop table consumer_errors_positions;
drop table consumer_errors_letters;
drop table consumer_errors_events;
drop table consumer_errors;
