drop table if exists consumer_errors_attempts;
drop table if exists consumer_errors_positions;
drop table if exists consumer_errors_letters;
drop table if exists consumer_errors_events;
drop table if exists consumer_errors;
