//! Rows, chosen by parts of their ids.

use anyhow::{Result, ensure};

use crate::rows;

/// The ids of the rows that these filters choose, in the order of the table; of all rows if there are none.
///
/// Rows that need a server are among them, whether or not there is one.
///
/// # Errors
///
/// If one of the filters chooses nothing.
pub fn chosen(filters: &[String]) -> Result<Vec<String>> {
    choose(rows::ids()?, filters)
}

/// Whether one of these filters chooses the row, or there are none.
pub(crate) fn chooses(filters: &[String], id: &str) -> bool {
    filters.is_empty() || filters.iter().any(|filter| id.contains(filter.as_str()))
}

fn choose(mut ids: Vec<String>, filters: &[String]) -> Result<Vec<String>> {
    for filter in filters {
        let is_known = ids.iter().any(|id| id.contains(filter.as_str()));
        ensure!(is_known, "no row has an id that contains `{filter}`; there are\n  {}", ids.join("\n  "));
    }
    ids.retain(|id| chooses(filters, id));
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn rows_are_chosen_by_any_part_of_their_ids() {
        let ids = some(&["idle/postgres", "idle/postgres/cpu", "gaps/mariadb/p99"]);
        let choose = |filters: &[&str]| choose(ids.clone(), &some(filters)).unwrap();
        assert_eq!(choose(&[]), ids);
        assert_eq!(choose(&["idle"]), ids[..2]);
        assert_eq!(choose(&["p99", "/cpu"]), ids[1..]);
    }

    #[test]
    fn each_filter_has_to_choose_something() {
        let error = choose(some(&["a/b", "a/c"]), &some(&["a", "d"])).unwrap_err().to_string();
        assert_eq!(error, "no row has an id that contains `d`; there are\n  a/b\n  a/c");
    }

    #[test]
    fn the_ids_are_those_of_the_lines_of_the_table() {
        let ids = chosen(&[]).unwrap();
        for id in ["engine/run", "idle/postgres/cpu", "latency/processes/mariadb/p50", "gaps/postgres/p99"] {
            assert!(ids.iter().any(|known| known == id), "{id} is not among {ids:?}");
        }
        assert!(!ids.iter().any(|id| id == "gaps/postgres"), "{ids:?}");
    }
}
