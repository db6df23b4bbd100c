//! The npm packages that `tidemark dev` needs: a local node and the real Safe contracts.
//!
//! Which ones, and their digests, is compiled in (`src/dev/npm`). They are installed once, in a cache folder
//! named after the lock file, so that another version of Tidemark gets a folder of its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = include_str!("npm/package.json");
const LOCK: &str = include_str!("npm/package-lock.json");
/// Written last: a folder without it was interrupted and is filled again.
const COMPLETE: &str = ".complete";

/// The installed packages.
#[derive(Clone, Debug)]
pub struct Packages {
    folder: PathBuf,
}

impl Packages {
    /// Installs what is missing; at once when nothing is. Several processes may call it together.
    ///
    /// # Errors
    /// What to do, when Node.js or npm is missing, the registry cannot be reached or the folder not written.
    pub async fn install() -> anyhow::Result<Self> {
        let folder =
            cache_folder().join(format!("dev-{}", &hex::encode(Sha256::digest(LOCK))[..12]));
        let packages = Self { folder };
        if packages.folder.join(COMPLETE).exists() {
            return Ok(packages);
        }
        fs::create_dir_all(&packages.folder)
            .with_context(|| format!("cannot make the folder {}", packages.folder.display()))?;
        let lock = File::create(packages.folder.join(".lock"))?;
        // The lock is the operating system's: it ends with the process, however that ends.
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        if !packages.folder.join(COMPLETE).exists() {
            install_in(&packages.folder).await?;
            fs::write(packages.folder.join(COMPLETE), "")?;
        }
        drop(lock);
        Ok(packages)
    }

    /// The `node_modules` folder.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.folder.join("node_modules")
    }

    /// The Anvil binary for this machine. npm installs only the package that fits.
    pub(super) fn anvil(&self) -> anyhow::Result<PathBuf> {
        let scope = self.modules().join("@foundry-rs");
        for entry in fs::read_dir(&scope).with_context(|| scope.display().to_string())? {
            let binary = entry?.path().join("bin").join("anvil");
            if binary.is_file() {
                return Ok(binary);
            }
        }
        bail!("npm has no Anvil for this machine: install Foundry, so that `anvil` is in the PATH")
    }
}

/// `$XDG_CACHE_HOME/tidemark`, or `.cache/tidemark` at home, or `data/.cache` where there is no home.
pub(super) fn cache_folder() -> PathBuf {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_CACHE_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .map_or_else(|| PathBuf::from("data/.cache"), |folder| folder.join("tidemark"))
}

async fn install_in(folder: &Path) -> anyhow::Result<()> {
    fs::write(folder.join("package.json"), MANIFEST)?;
    fs::write(folder.join("package-lock.json"), LOCK)?;
    let progress = indicatif::ProgressBar::new_spinner()
        .with_message("first run: installing Anvil and the Safe contracts with npm (about 15 MB)");
    if progress.is_hidden() {
        eprintln!("{}", progress.message());
    }
    progress.enable_steady_tick(std::time::Duration::from_millis(100));
    let output = tokio::process::Command::new("npm")
        .args(["ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    progress.finish_and_clear();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "npm is not installed: `tidemark dev` takes its local node and the Safe contracts from npm. \
             Install Node.js 20 or newer (it brings npm) and start again"
        ),
        Err(error) => return Err(error).context("cannot start npm"),
    };
    if !output.status.success() {
        bail!(
            "npm could not install the packages ({}). It said:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
