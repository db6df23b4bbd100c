//! A temporary folder that lives as long as what is in it is needed.

use std::path::PathBuf;

use anyhow::Context as _;

/// Removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Folder(pub PathBuf);

impl Folder {
    /// An empty folder that nobody else uses.
    pub(super) fn create() -> anyhow::Result<Self> {
        let name = format!("tidemark-dev-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a temporary folder was left behind");
        }
    }
}
