//! A cursor store of our own, in a JSON file, that keeps the contract of every cursor store.
//!
//! ```sh
//! cargo run -p reflex-examples --bin custom_cursors
//! cargo test -p reflex-examples --bin custom_cursors    # the conformance suite
//! ```
#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use reflex_core::{
    Cursor, CursorStore, Error, Event, HandlerError, MemoryEvents, NewEvent, Result, Spec, check_forward, consumer_fn,
    run,
};
use tokio::task::spawn_blocking;

type Cursors = BTreeMap<String, String>;

/// Keeps cursors in the file `cursors.json` of a folder, which any number of processes may share.
#[derive(Clone, Debug)]
struct FileCursors {
    folder: PathBuf,
}

impl FileCursors {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// A reader always finds a whole file, because it is replaced by renaming another one.
    fn read(&self) -> io::Result<Cursors> {
        match fs::read(self.folder.join("cursors.json")) {
            Ok(json) => Ok(serde_json::from_slice(&json)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Cursors::new()),
            Err(error) => Err(error),
        }
    }

    fn replace(&self, cursors: &Cursors) -> io::Result<()> {
        let temporary = self.folder.join("cursors.json.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(cursors)?)?;
        file.sync_all()?;
        fs::rename(&temporary, self.folder.join("cursors.json"))?;
        // Only then does the new name survive a power failure.
        File::open(&self.folder)?.sync_all()
    }

    /// One writer at a time compares and sets. The lock ends with the file handle.
    fn advance(&self, consumer: String, cursor: &Cursor) -> Result<()> {
        let attempted = format!("set cursor of consumer `{consumer}` in folder `{}`", self.folder.display());
        let failed = |error| Error::store(attempted.clone(), error);
        let lock = File::create(self.folder.join("cursors.lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut cursors = self.read().map_err(failed)?;
        if let Some(stored) = cursors.get(&consumer) {
            check_forward(&consumer, &stored.as_str().into(), cursor)?;
        }
        cursors.insert(consumer, cursor.to_string());
        self.replace(&cursors).map_err(failed)
    }
}

impl CursorStore for FileCursors {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        let attempted = format!("get cursor of consumer `{consumer}` in folder `{}`", self.folder.display());
        let store = self.clone();
        let read = spawn_blocking(move || store.read()).await;
        let cursors = read.unwrap_or_else(|died| Err(died.into())).map_err(|error| Error::store(attempted, error))?;
        Ok(cursors.get(consumer).map(|cursor| cursor.as_str().into()))
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        let (store, consumer, cursor) = (self.clone(), consumer.to_owned(), cursor.clone());
        let set = spawn_blocking(move || store.advance(consumer, &cursor)).await;
        set.unwrap_or_else(|died| Err(Error::store("set a cursor in a file", died)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), HandlerError> {
    let folder = tempfile::tempdir()?;
    let events = MemoryEvents::new();
    for order in ["order-1", "order-2", "order-3"] {
        events.append(NewEvent::new(order, 1));
        // Each round opens the file anew, as a restarted process would.
        let ship = consumer_fn("ship", |event: Event| async move {
            println!("shipping {}", event.foreign_id());
            Ok(())
        });
        let Err(end) = run(&mut Spec::new(events.clone(), FileCursors::new(folder.path()), ship).to_head()).await;
        println!("{end}");
    }
    println!("{}", fs::read_to_string(folder.path().join("cursors.json"))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use reflex_testing::conformance::{CursorCapabilities, cursor_store};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let namespace = |_case| async {
            let folder = tempfile::tempdir()?;
            Ok(move || std::future::ready(Ok(FileCursors::new(folder.path()))))
        };
        cursor_store(namespace, CursorCapabilities::default()).await;
    }

    #[tokio::test]
    async fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cursors.json"), "{\"ship\":").unwrap();
        let error = FileCursors::new(folder.path()).get("ship").await.unwrap_err();
        assert!(error.to_string().contains("`ship`"), "{error}");
        assert!(FileCursors::new(folder.path()).set("ship", &1.into()).await.is_err());
    }
}
