//! The runtime that futures of the application may use while they are polled.

/// None, or that of tokio.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime(#[cfg(feature = "tokio")] Option<tokio::runtime::Handle>);

impl Runtime {
    #[cfg(feature = "tokio")]
    pub(crate) fn tokio(handle: tokio::runtime::Handle) -> Self {
        Self(Some(handle))
    }

    /// Enters it, for as long as the result lives.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn enter(&self) -> Option<tokio::runtime::EnterGuard<'_>> {
        self.0.as_ref().map(tokio::runtime::Handle::enter)
    }

    /// There is none to enter.
    #[cfg(not(feature = "tokio"))]
    #[inline]
    #[expect(clippy::unused_self, reason = "there may be one")]
    pub(crate) fn enter(&self) -> Option<()> {
        None
    }
}
