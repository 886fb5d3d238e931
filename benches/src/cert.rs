//! `ringwire-bench cert`: a self-signed certificate and its key, for tests of TLS.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::output;

/// The names of a certificate for which none are given.
const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const CERTIFICATE_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";
const DAY: Duration = Duration::from_secs(86_400);

/// Flags of `ringwire-bench cert`.
#[derive(Debug, clap::Args)]
pub(crate) struct CertArgs {
    /// Folder for cert.pem and key.pem; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Host name or address that the certificate is for. May be given several times; by default
    /// localhost, 127.0.0.1 and ::1.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Makes an RSA key of 2048 bits instead of an ECDSA one on P-256.
    #[arg(long)]
    rsa: bool,
    /// How long it is valid, from yesterday on.
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Replaces files that are there.
    #[arg(long)]
    force: bool,
}

/// Runs the subcommand.
pub(crate) fn command(args: &CertArgs) -> anyhow::Result<()> {
    let kind = if args.rsa { KeyKind::Rsa2048 } else { KeyKind::EcdsaP256 };
    let made = SelfSigned::generate(kind, &args.names, args.days)?;
    let (certificate, key) = made.write(&args.out, args.force)?;
    output::say(format_args!("{}\n{}", certificate.display(), key.display()))?;
    Ok(())
}

/// The kind of a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// ECDSA on the curve P-256, with SHA-256.
    EcdsaP256,
    /// RSA with 2048 bits, with SHA-256.
    Rsa2048,
}

/// A certificate that is its own authority, and its key, both in PEM.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct SelfSigned {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl SelfSigned {
    /// Makes a key and a certificate for `names`, or for this machine without any, that is valid for `days`.
    ///
    /// # Errors
    /// When a name is none, or this build cannot make keys of this kind.
    pub(crate) fn generate(kind: KeyKind, names: &[String], days: u32) -> anyhow::Result<Self> {
        let defaults = DEFAULT_NAMES.map(str::to_owned);
        let names = if names.is_empty() { &defaults } else { names };
        let key = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            KeyKind::Rsa2048 => KeyPair::generate_for(&PKCS_RSA_SHA256).context(
                "this build cannot make RSA keys: build ringwire-bench with --features rsa",
            )?,
        };
        let mut params = CertificateParams::new(names).with_context(|| {
            format!("{}: every name must be a DNS name or an IP address", names.join(", "))
        })?;
        if let Some(first) = names.first() {
            params.distinguished_name.push(DnType::CommonName, first.as_str());
        }
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        // For either side.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // Clocks of test machines differ.
        params.not_before = OffsetDateTime::now_utc() - DAY;
        params.not_after = params.not_before + DAY * days;
        let certificate = params.self_signed(&key).context("cannot sign the certificate")?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Writes both into a folder, the key for its owner alone. Where they are.
    ///
    /// # Errors
    /// When a file cannot be written, or is there already and may not be replaced.
    pub(crate) fn write(&self, dir: &Path, replace: bool) -> anyhow::Result<(PathBuf, PathBuf)> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (certificate, key) = (dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE));
        for (path, text, mode) in
            [(&key, &self.key, 0o600), (&certificate, &self.certificate, 0o644)]
        {
            let mut options = OpenOptions::new();
            options.write(true).mode(mode);
            if replace {
                options.create(true).truncate(true);
            } else {
                options.create_new(true);
            }
            let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok((certificate, key))
    }
}

#[cfg(test)]
mod tests {
    use ringwire_tls::pki_types::UnixTime;
    use ringwire_tls::{CertificateSource, ServerSettings};

    use super::*;

    fn load(made: &SelfSigned, at: Duration) -> Result<(), String> {
        let source = CertificateSource::pem(made.certificate.as_str(), made.key.as_str());
        let built = ServerSettings::new(source).build(UnixTime::since_unix_epoch(at));
        built.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_valid_for_its_days() {
        let made = SelfSigned::generate(KeyKind::EcdsaP256, &[], 3).unwrap();
        let now = Duration::from_secs(UnixTime::now().as_secs());
        load(&made, now).unwrap();
        load(&made, now + DAY).unwrap();
        assert!(load(&made, now + 3 * DAY).is_err());
        assert!(load(&made, now.saturating_sub(2 * DAY)).is_err());
    }

    #[test]
    fn files_are_not_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let made = SelfSigned::generate(KeyKind::EcdsaP256, &["a.example".to_owned()], 1).unwrap();
        let (certificate, key) = made.write(&dir.path().join("new"), false).unwrap();
        assert!(fs::read_to_string(&certificate).unwrap().contains("BEGIN CERTIFICATE"));
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let other = SelfSigned::generate(KeyKind::EcdsaP256, &[], 1).unwrap();
        let error = other.write(&dir.path().join("new"), false).unwrap_err();
        assert!(error.to_string().contains("key.pem"), "{error}");
        assert_eq!(fs::read_to_string(&key).unwrap(), made.key);
        other.write(&dir.path().join("new"), true).unwrap();
        assert_eq!(fs::read_to_string(&key).unwrap(), other.key);
    }

    #[test]
    fn rsa_is_made_or_refused_in_words() {
        let now = Duration::from_secs(UnixTime::now().as_secs());
        match SelfSigned::generate(KeyKind::Rsa2048, &[], 1) {
            Ok(made) => load(&made, now).unwrap(),
            Err(error) => assert!(error.to_string().contains("--features rsa"), "{error}"),
        }
    }
}
