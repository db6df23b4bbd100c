//! Who this daemon is among those that share a database: the same after a restart, so that it need not wait for its
//! own lease to run out.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
};

use uuid::Uuid;

use crate::id::Ids;

const FILE: &str = "daemon-id";

/// The name, and the lock that keeps another process of the same folder from using it.
#[derive(Debug)]
pub(super) struct Identity {
    name: String,
    _file: Option<File>,
}

impl Identity {
    /// The identity that is kept in a folder; a new one for this run only, where another process has that one or
    /// the folder cannot be written to.
    pub fn of(folder: &Path, ids: &Ids) -> Self {
        Self::kept(folder, ids).unwrap_or_else(|error| {
            tracing::info!(%error, folder = %folder.display(), "this daemon has a name for this run only");
            Self { name: ids.next::<Uuid>().to_string(), _file: None }
        })
    }

    fn kept(folder: &Path, ids: &Ids) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let options =
            File::options().read(true).write(true).create(true).truncate(false).to_owned();
        let mut file = options.open(folder.join(FILE))?;
        file.try_lock()?;
        let mut name = String::new();
        file.read_to_string(&mut name)?;
        if name.trim().parse::<Uuid>().is_err() {
            name = ids.next::<Uuid>().to_string();
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(name.as_bytes())?;
            file.sync_all()?;
        }
        Ok(Self { name: name.trim().to_owned(), _file: Some(file) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_daemon_is_the_same_after_a_restart_and_two_of_one_folder_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let ids = Ids::new(Clock::System);
        let of = |folder: &Path| Identity::of(folder, &ids);
        let first = of(folder.path());
        let second = of(folder.path());
        assert_ne!(first.name, second.name);
        let name = first.name.clone();
        drop(first);
        assert_eq!(of(folder.path()).name, name);
        fs::write(folder.path().join(FILE), "not a name").unwrap();
        assert_ne!(of(folder.path()).name, "not a name");
        assert_ne!(of(&folder.path().join(FILE)).name, name, "no folder");
    }
}
