//! What stands for the types of rustls in a build without it.

/// Names, certificates and times, as far as others than rustls meet them.
pub mod pki_types {
    use std::convert::Infallible;
    use std::marker::PhantomData;

    /// A server's name, which nobody can be asked for.
    #[derive(Clone, Debug)]
    pub struct ServerName<'n>(Infallible, PhantomData<&'n ()>);

    impl TryFrom<String> for ServerName<'_> {
        type Error = InvalidDnsNameError;

        fn try_from(_name: String) -> Result<Self, InvalidDnsNameError> {
            Err(InvalidDnsNameError)
        }
    }

    /// No name can be asked for.
    #[derive(Clone, Copy, Debug)]
    pub struct InvalidDnsNameError;

    /// A certificate that nobody has.
    #[derive(Clone, Debug)]
    pub struct CertificateDer<'c>(Infallible, PhantomData<&'c ()>);

    /// The time, by which nothing is judged.
    #[derive(Clone, Copy, Debug)]
    pub struct UnixTime(());

    impl UnixTime {
        /// The time of the call.
        #[must_use]
        pub const fn now() -> Self {
            Self(())
        }
    }
}

/// The errors of rustls, of which there are none.
pub(crate) mod errors {
    use std::convert::Infallible;
    use std::fmt;

    /// Any error of rustls.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Error(Infallible);

    impl fmt::Display for Error {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {}
        }
    }

    impl std::error::Error for Error {}

    /// Why a certificate was refused.
    #[derive(Clone, Debug, PartialEq)]
    pub struct CertificateError(Infallible);

    impl fmt::Display for CertificateError {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {}
        }
    }

    /// The reason that a peer gave.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct AlertDescription(Infallible);
}
