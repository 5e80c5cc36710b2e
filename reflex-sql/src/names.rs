use std::fmt;

use crate::error::{Error, Problem};

/// The longest identifier that every supported database takes: Postgres cuts off after 63 bytes.
const MAX_LEN: usize = 63;

/// The name of a table, with an optional schema or database in front, checked to be nothing but that.
///
/// Names reach SQL text, quoted; they are never user data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableName {
    schema: Option<Identifier>,
    table: Identifier,
}

/// One identifier: a letter or underscore, then letters, digits and underscores; or whatever a database calls its schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identifier(Box<str>);

impl TableName {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, text),
        };
        let whole = |_| Problem::InvalidName(text.to_owned());
        Ok(Self {
            schema: schema.map(Identifier::parse).transpose().map_err(whole)?,
            table: Identifier::parse(table).map_err(whole)?,
        })
    }

    /// The same table in the schema that the database found it in, unless the user named one.
    pub(crate) fn found_in(&self, schema: &str) -> Self {
        let found = || Identifier(schema.into());
        Self { schema: Some(self.schema.clone().unwrap_or_else(found)), table: self.table.clone() }
    }

    pub(crate) fn table(&self) -> &str {
        &self.table.0
    }

    pub(crate) fn schema(&self) -> Option<&str> {
        self.schema.as_ref().map(|schema| &*schema.0)
    }

    /// The name as SQL text, with each part between `quote`s.
    pub(crate) fn quoted(&self, quote: char) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", schema.quoted(quote), self.table.quoted(quote)),
            None => self.table.quoted(quote),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", schema.0)?;
        }
        f.write_str(&self.table.0)
    }
}

impl Identifier {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let valid = text.len() <= MAX_LEN
            && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if valid { Ok(Self(text.into())) } else { Err(Problem::InvalidName(text.to_owned()).into()) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn quoted(&self, quote: char) -> String {
        let doubled = self.0.replace(quote, &format!("{quote}{quote}"));
        format!("{quote}{doubled}{quote}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(TableName::parse(text).ok().map(|name| name.quoted('"')).as_deref(), expected, "{text:?}");
    }

    #[test]
    fn a_schema_of_the_database_may_have_any_name() {
        let name = TableName::parse("events").unwrap().found_in("tenant \"1\"");
        assert_eq!(name.quoted('"'), "\"tenant \"\"1\"\"\".\"events\"");
        assert_eq!(TableName::parse("shop.events").unwrap().found_in("other").quoted('"'), "\"shop\".\"events\"");
    }

    #[test]
    fn only_plain_identifiers_are_names() {
        check("events", Some("\"events\""));
        check("shop.Order_events2", Some("\"shop\".\"Order_events2\""));
        check("", None);
        check("1events", None);
        check("events; drop table users", None);
        check("eve\"nts", None);
        check("a.b.c", None);
        check(".events", None);
        check("events.", None);
        check("évents", None);
        check(&"e".repeat(63), Some(&format!("\"{}\"", "e".repeat(63))));
        check(&"e".repeat(64), None);
    }
}
