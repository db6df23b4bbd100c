//! How the C library's allocator gives memory back.
//!
//! As glibc begins, it gives a freed buffer of 128 KiB or more back to the system; with each larger one that is freed
//! it keeps more, up to 32 MiB, in each of eight arenas for a processor. A daemon that reads blocks of some megabytes
//! then holds half as much again as it uses. Both are fixed by variables that glibc reads as a program starts (man
//! mallopt), so the program replaces itself once by itself with them.

/// Gives large buffers back as they are freed, unless the environment says how memory is to be handled. Comes back
/// where nothing is to be done, or nothing can be.
pub fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::{
            env, num::NonZero, os::unix::process::CommandExt as _, process::Command, thread,
        };

        /// Bytes, as glibc begins with.
        const MMAP_THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");
        const ARENAS: &str = "MALLOC_ARENA_MAX";

        let said = [MMAP_THRESHOLD.0, ARENAS, "GLIBC_TUNABLES", "LD_PRELOAD"];
        if said.iter().any(|name| env::var_os(name).is_some()) {
            return;
        }
        let Ok(program) = env::current_exe() else { return };
        let arenas = thread::available_parallelism().map_or(2, NonZero::get).max(2);
        let mut args = env::args_os();
        let mut again = Command::new(program);
        if let Some(name) = args.next() {
            again.arg0(name);
        }
        again.args(args).env(MMAP_THRESHOLD.0, MMAP_THRESHOLD.1).env(ARENAS, arenas.to_string());
        // Only an error comes back: then it runs with more memory than it needs.
        let _error = again.exec();
    }
}
