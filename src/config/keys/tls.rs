//! The table of the keys of TLS, on a listener and towards backends. Not the reading itself.

use super::{Kind, Scope, choice, key, words};

/// The most certificates of a listener.
const MAX_CERTIFICATES: usize = 1_024;

pub(in crate::config) static LISTENER: Scope = Scope {
    required: &[&["certificates"]],
    keys: &[
        key(
            "certificates",
            Kind::List(&Kind::Map(&CERTIFICATE), MAX_CERTIFICATES),
            "",
            "What is shown to clients, by the host name they ask for; the first one to all others.",
        ),
        key(
            "client_ca",
            Kind::Path,
            "",
            "A PEM file of authorities: clients must show a certificate of one of them.",
        ),
        key(
            "min_version",
            choice(words::TLS_VERSION_WORDS),
            "1.2",
            "The oldest version of TLS that is spoken.",
        ),
    ],
};

pub(in crate::config) static CERTIFICATE: Scope = Scope {
    required: &[&["cert"], &["key"]],
    keys: &[
        key(
            "cert",
            Kind::Path,
            "",
            "A PEM file: the certificate, then those between it and its authority.",
        ),
        key("key", Kind::Path, "", "A PEM file: the certificate's private key."),
    ],
};

pub(in crate::config) static UPSTREAM: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "ca",
            Kind::Path,
            "",
            "A PEM file of authorities that backends' certificates must be of; when not given, those that this machine trusts.",
        ),
        key(
            "server_name",
            Kind::Text,
            "",
            "The name that their certificates must have; when not given, the host of each one's address.",
        ),
        key("cert", Kind::Path, "", "A PEM file: the certificate that we show."),
        key("key", Kind::Path, "", "A PEM file: its private key."),
        key(
            "insecure_skip_verify",
            Kind::Switch,
            "false",
            "true: believe any certificate, so that anybody in between can read and change everything.",
        ),
    ],
};
