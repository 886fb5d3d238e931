//! What an application finds and leaves when a program starts.

use std::ops::Deref;

use super::SetupError;
use super::signals::Reload;
use crate::config::Config;
use crate::config::settings::Settings;

/// A start of a [program](super::Program::run_with): the settings, and what the application adds to the run.
///
/// ```no_run
/// use std::process::ExitCode;
/// use std::sync::{Arc, RwLock};
/// use ringwire::on_message;
/// use ringwire::program::{Program, SetupError};
///
/// fn main() -> ExitCode {
///     Program::new("motto").with_own_setting("motto_file").run_with(|setup| {
///         let path = setup.own_required("motto_file")?.to_owned();
///         let motto = Arc::new(RwLock::new(std::fs::read_to_string(&path)?));
///         let renewed = motto.clone();
///         setup.on_reload(move || {
///             *renewed.write().map_err(|_| "a handler has panicked")? = std::fs::read_to_string(&path)?;
///             Ok(())
///         });
///         Ok(move |_worker: &_| {
///             let motto = motto.clone();
///             on_message(move |ctx, _| {
///                 let motto = motto.read().map(|it| it.clone()).unwrap_or_default();
///                 ctx.send(&motto)
///             })
///         })
///     })
/// }
/// ```
pub struct Setup<'a> {
    settings: &'a Settings,
    pub(super) config: Config,
    pub(super) reload: Option<Reload>,
    #[cfg(feature = "tokio")]
    pub(super) runtime: Option<tokio::runtime::Runtime>,
}

impl<'a> Setup<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            config: settings.config().clone(),
            reload: None,
            #[cfg(feature = "tokio")]
            runtime: None,
        }
    }

    /// The settings.
    pub fn settings(&self) -> &'a Settings {
        self.settings
    }

    /// What the server will start with: what was set, to begin with, to which the application may add what follows from
    /// its own settings.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Has the application read again what it has from files, on SIGHUP, once the certificates have been. It runs on
    /// the thread of the signals, so it may wait for files and for workers. Its error is logged.
    pub fn on_reload(&mut self, reload: impl FnMut() -> Result<(), SetupError> + Send + 'static) {
        self.reload = Some(Box::new(reload));
    }

    /// A runtime of tokio, made by the first call, for what the application awaits: a database, say. It has one thread
    /// beside the workers, which poll their own futures in it ([`Server::with_runtime`](crate::Server::with_runtime)),
    /// and ends with the program.
    ///
    /// # Errors
    /// There is no thread to be had.
    #[cfg(feature = "tokio")]
    pub fn runtime(&mut self) -> std::io::Result<tokio::runtime::Handle> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(1).enable_all().build()?
            }
        };
        Ok(self.runtime.insert(runtime).handle().clone())
    }
}

impl Deref for Setup<'_> {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        self.settings
    }
}

impl std::fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("settings", self.settings).finish_non_exhaustive()
    }
}
