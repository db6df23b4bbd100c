//! A small disk, which can be full.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::unprivileged;

/// A small disk in memory. Only root can make one.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    pub fn of_megabytes(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}m"), "tmpfs"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "a tmpfs needs root, or a container that may mount");
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder on it for a server's own use.
    pub fn folder_of_a_server(&self) -> PathBuf {
        let folder = self.folder.path().join("space");
        fs::create_dir(&folder).unwrap();
        if let Some((user, group)) = unprivileged() {
            std::os::unix::fs::chown(&folder, Some(user), Some(group)).unwrap();
        }
        folder
    }

    /// Leaves no room.
    pub fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        let piece = vec![1; 64 * 1024];
        while ballast.write_all(&piece).is_ok() {}
        while ballast.write_all(&piece[..512]).is_ok() {}
    }

    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it until then.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}
