//! Which of a server's endpoints is used, and who logs in there.

use std::path::Path;

use opcua::client::IdentityToken;
use opcua::crypto::SecurityPolicy;
use opcua::types::{EndpointDescription, MessageSecurityMode, UserTokenType};

use super::settings::{Login, Security};
use crate::drivers::DriverError;

/// A password is shorter.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// The endpoint to use, with the address that we were given: servers often name themselves as only their own network knows
/// them.
pub(super) fn choose(
    endpoints: &[EndpointDescription],
    url: &str,
    security: Security,
    login: &Login,
) -> Result<EndpointDescription, DriverError> {
    let fits = |endpoint: &&EndpointDescription| match security {
        Security::Best => rank(endpoint) > 0,
        Security::None => endpoint.security_mode == MessageSecurityMode::None,
        Security::Exactly(policy, mode) => policy_of(endpoint) == policy && endpoint.security_mode == mode,
    };
    let is_binary = |endpoint: &&EndpointDescription| endpoint.endpoint_url.as_ref().starts_with("opc.tcp:");
    let secure: Vec<&EndpointDescription> = endpoints.iter().filter(is_binary).filter(fits).collect();
    if secure.is_empty() {
        let offered = offered(endpoints);
        return Err(DriverError::Config(match security {
            Security::Best => format!(
                "the server offers no security that is safe today ({offered}); write security = \"none\" if it may be read in the clear"
            ),
            _ => format!("the server does not offer this security; it offers {offered}"),
        }));
    }
    let wanted = match login {
        Login::Anonymous => UserTokenType::Anonymous,
        Login::Password(..) => UserTokenType::UserName,
        Login::Certificate(..) => UserTokenType::Certificate,
    };
    let takes = |endpoint: &&&EndpointDescription| {
        endpoint.user_identity_tokens.iter().flatten().any(|policy| policy.token_type == wanted)
    };
    let Some(best) = secure.iter().filter(takes).max_by_key(|endpoint| rank(endpoint)) else {
        let kinds: Vec<String> = secure
            .iter()
            .flat_map(|endpoint| endpoint.user_identity_tokens.iter().flatten())
            .map(|policy| format!("{:?}", policy.token_type))
            .collect();
        return Err(DriverError::Denied(format!(
            "the server takes logins of type {}, not {wanted:?}",
            listed(kinds)
        )));
    };
    let mut chosen = (*best).clone();
    chosen.endpoint_url = url.into();
    let own_policy = chosen.security_policy_uri.clone();
    for policy in chosen.user_identity_tokens.iter_mut().flatten() {
        // Part 4: a token without a policy of its own is protected by the endpoint's. The library takes it for none.
        if policy.security_policy_uri.is_empty() {
            policy.security_policy_uri = own_policy.clone();
        }
    }
    Ok(chosen)
}

/// Who logs in; the files are read now.
pub(super) fn identity(login: &Login, endpoint: &EndpointDescription) -> Result<IdentityToken, DriverError> {
    let unreadable = |file: &Path, why: String| DriverError::Config(format!("{}: {why}", file.display()));
    match login {
        Login::Anonymous => Ok(IdentityToken::Anonymous),
        Login::Password(user, file) => {
            let length = std::fs::metadata(file).map(|meta| meta.len());
            if length.as_ref().is_ok_and(|length| *length > PASSWORD_BYTES_MAX) {
                return Err(unreadable(file, "is too long for a password".into()));
            }
            let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, error.to_string()))?;
            let policy = endpoint
                .user_identity_tokens
                .iter()
                .flatten()
                .find(|p| p.token_type == UserTokenType::UserName);
            let is_bare = policy.is_none_or(|policy| {
                SecurityPolicy::from_uri(policy.security_policy_uri.as_ref()) == SecurityPolicy::None
            });
            if is_bare && endpoint.security_mode != MessageSecurityMode::SignAndEncrypt {
                tracing::warn!(url = %endpoint.endpoint_url, "the password travels in the clear");
            }
            Ok(IdentityToken::new_user_name(user.as_str(), text.trim_end_matches(['\r', '\n'])))
        }
        Login::Certificate(cert, key) => IdentityToken::new_x509_path(cert, key).map_err(|error| {
            DriverError::Config(format!("{} or {}: {error}", cert.display(), key.display()))
        }),
    }
}

fn policy_of(endpoint: &EndpointDescription) -> SecurityPolicy {
    SecurityPolicy::from_uri(endpoint.security_policy_uri.as_ref())
}

/// The higher the safer; 0 for what is not safe.
fn rank(endpoint: &EndpointDescription) -> u8 {
    let policy = match policy_of(endpoint) {
        SecurityPolicy::Aes256Sha256RsaPss => 3,
        SecurityPolicy::Basic256Sha256 => 2,
        SecurityPolicy::Aes128Sha256RsaOaep => 1,
        _ => return 0,
    };
    match endpoint.security_mode {
        MessageSecurityMode::SignAndEncrypt => policy + 10,
        MessageSecurityMode::Sign => policy,
        _ => 0,
    }
}

fn offered(endpoints: &[EndpointDescription]) -> String {
    let name = |endpoint: &EndpointDescription| {
        let uri = endpoint.security_policy_uri.as_ref();
        format!("{}/{:?}", uri.rsplit('#').next().unwrap_or(uri), endpoint.security_mode)
    };
    listed(endpoints.iter().map(name).collect())
}

fn listed(mut names: Vec<String>) -> String {
    names.sort();
    names.dedup();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use opcua::types::UserTokenPolicy;

    use super::*;

    fn endpoint(policy: SecurityPolicy, mode: MessageSecurityMode) -> EndpointDescription {
        EndpointDescription {
            endpoint_url: "opc.tcp://inside:4840".into(),
            security_policy_uri: policy.to_uri().into(),
            security_mode: mode,
            user_identity_tokens: Some(vec![UserTokenPolicy {
                token_type: UserTokenType::Anonymous,
                ..UserTokenPolicy::default()
            }]),
            ..EndpointDescription::default()
        }
    }

    #[test]
    fn the_safest_is_taken_and_none_only_if_it_is_said() {
        use MessageSecurityMode::{None, Sign, SignAndEncrypt};
        let mut all = vec![
            endpoint(SecurityPolicy::None, None),
            endpoint(SecurityPolicy::Aes256Sha256RsaPss, Sign),
            endpoint(SecurityPolicy::Basic256Sha256, SignAndEncrypt),
            endpoint(SecurityPolicy::Basic128Rsa15, SignAndEncrypt),
        ];
        let chosen = choose(&all, "opc.tcp://outside:4840", Security::Best, &Login::Anonymous).unwrap();
        assert_eq!(policy_of(&chosen), SecurityPolicy::Basic256Sha256);
        assert_eq!(chosen.endpoint_url.as_ref(), "opc.tcp://outside:4840");
        assert_eq!(chosen.user_identity_tokens.unwrap()[0].security_policy_uri, chosen.security_policy_uri);
        let none = choose(&all, "x", Security::None, &Login::Anonymous).unwrap();
        assert_eq!(none.security_mode, None);
        all.remove(2);
        all.remove(1);
        let refused = choose(&all, "x", Security::Best, &Login::Anonymous).unwrap_err().to_string();
        assert!(refused.contains("security = \"none\"") && refused.contains("Basic128Rsa15"), "{refused}");
        let password = Login::Password("u".into(), "f".into());
        let refused = choose(&all, "x", Security::None, &password).unwrap_err().to_string();
        assert!(refused.contains("Anonymous") && refused.contains("UserName"), "{refused}");
    }
}
