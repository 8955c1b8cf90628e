//! Every way in, every refusal, and how fast one may guess.

use super::super::edit::{Change, NewToken, edit, hash_password};
use super::super::tests::{ELSEWHERE, Fixture, HERE, shown, with_certificate};
use super::*;

fn refused(login: Result<Login, Refusal>) -> u8 {
    login.unwrap_err().reason
}

async fn settled(plant: &Fixture) {
    let before = plant.book.generation();
    plant.within_a_second("the change", |book| book.generation() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_password() {
    let plant = Fixture::new();
    let login = plant.login(shown(Some("scada"), Some("pw"))).await.unwrap();
    assert_eq!((login.identity.name(), login.identity.how()), ("scada", "password"));
    assert!(login.rights.may_subscribe("#") && !login.rights.may_publish("a"));
    for (user, password) in [
        (Some("scada"), Some("PW")),
        (Some("scada"), Some("")),
        (Some("scada"), None),
        (Some("nobody"), Some("pw")),
        (Some("line-3"), Some("pw")),
        (Some("anonymous"), Some("pw")),
        (None, Some("pw")),
        (Some(""), Some("pw")),
    ] {
        assert_eq!(refused(plant.login(shown(user, password)).await), 0x86, "{user:?} {password:?}");
    }
    let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
    assert_eq!(refused(plant.login(shown(Some("scada"), Some(&long))).await), 0x86);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_token_with_or_without_the_name() {
    let plant = Fixture::new();
    let token = NewToken::make().unwrap();
    plant.change("line-3", &Change { token: Some(token.hash.clone()), ..Change::default() });
    settled(&plant).await;
    for user in [Some("line-3"), Some(""), None] {
        let login = plant.login(shown(user, Some(&token.text))).await.unwrap();
        assert_eq!((login.identity.name(), login.identity.how()), ("line-3", "token"));
        assert!(login.rights.may_publish("spBv1.0/antwerp/DDATA/line-3/press"));
        assert!(!login.rights.may_publish("spBv1.0/antwerp/DDATA/line-4/press"));
    }
    assert_eq!(refused(plant.login(shown(Some("scada"), Some(&token.text))).await), 0x86, "another's");
    let hash = token.hash.strip_prefix("sha256:").unwrap();
    assert_eq!(refused(plant.login(shown(None, Some(hash))).await), 0x86, "what the file shows is no token");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_certificate() {
    let plant = Fixture::new();
    let login = plant.login(with_certificate(&["gateway.example", "line-3"], 5)).await.unwrap();
    assert_eq!((login.identity.name(), login.identity.how()), ("line-3", "certificate"));
    assert_eq!(login.identity.node.as_ref().unwrap().to_string(), "antwerp/line-3");
    assert_eq!(refused(plant.login(with_certificate(&["scada"], 5)).await), 0x87, "has a password only");
    assert_eq!(refused(plant.login(with_certificate(&["nobody"], 5)).await), 0x87);
    let open = Credentials { anonymous_read: true, ..with_certificate(&["nobody"], 5) };
    assert_eq!(refused(plant.login(open).await), 0x87, "who shows a certificate is not anonymous");
    let named = |user| Credentials { user: Some(user), ..with_certificate(&["line-3"], 5) };
    assert!(plant.login(named("line-3")).await.is_ok());
    assert_eq!(refused(plant.login(named("scada")).await), 0x87, "the name is not in the certificate");
    let both = Credentials { password: Some(b"pw"), ..named("scada") };
    assert_eq!(plant.login(both).await.unwrap().identity.name(), "scada", "a password decides");
    let wrong = Credentials { password: Some(b"wrong"), ..named("line-3") };
    assert_eq!(refused(plant.login(wrong).await), 0x86, "a wrong one too");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_this_machine() {
    let plant = Fixture::new();
    let password = plant.agent_password();
    let agent = |user, password| plant.login(shown(Some(user), Some(password)));
    let login = agent("g/n", password.as_str()).await.unwrap();
    assert_eq!(login.identity.name(), "g/n");
    assert!(login.rights.may_publish("spBv1.0/g/NDATA/n") && !login.rights.may_publish("spBv1.0/g/NCMD/n"));
    assert!(login.rights.may_subscribe("spBv1.0/g/NCMD/n") && !login.rights.may_subscribe("#"));
    for wrong in ["g/n/x", "g", "/n", "g/"] {
        assert_eq!(refused(agent(wrong, &password).await), 0x86, "{wrong}");
    }
    assert_eq!(refused(agent("g/n", "wrong").await), 0x86);
    let odd = agent("$SYS/n", &password).await.unwrap();
    assert!(!odd.rights.may_publish("$SYS/NDATA/n"), "a name at the beginning does not lead below $");
    let remote = Credentials { loopback: false, peer: ELSEWHERE, ..shown(Some("g/n"), Some(&password)) };
    assert_eq!(refused(plant.login(remote).await), 0x86, "from this machine only");
    let without = std::fs::read_to_string(&plant.path).unwrap().replace("[roles.agent]", "[roles.elsewhere]");
    let without = without.replace("roles = [\"agent\"]", "roles = [\"elsewhere\"]");
    std::fs::write(&plant.path, without).unwrap();
    plant.within_a_second("no role", |book| book.rights(&login.identity).is_none()).await;
    assert_eq!(refused(agent("g/n", &password).await), 0x87);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_login_only_where_it_is_allowed() {
    let plant = Fixture::new();
    assert_eq!(refused(plant.login(shown(None, None)).await), 0x87);
    let open = |user| Credentials { anonymous_read: true, ..shown(user, None) };
    let login = plant.login(open(None)).await.unwrap();
    assert!(login.rights.may_subscribe("#") && !login.rights.may_publish("a"));
    assert_eq!(login.identity.name(), "anonymous");
    assert_eq!(
        refused(plant.login(open(Some("scada"))).await),
        0x86,
        "a name without its password is no anonymous"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_identity_is_refused_however_it_comes() {
    let plant = Fixture::new();
    let disabled = Change { disabled: Some(true), ..Change::default() };
    edit(&plant.path, |file| file.update("scada", &disabled).and_then(|()| file.update("line-3", &disabled)))
        .unwrap();
    settled(&plant).await;
    assert_eq!(refused(plant.login(shown(Some("scada"), Some("pw"))).await), 0x87);
    assert_eq!(
        refused(plant.login(shown(Some("scada"), Some("wrong"))).await),
        0x86,
        "says nothing to a guesser"
    );
    assert_eq!(refused(plant.login(with_certificate(&["line-3"], 5)).await), 0x87);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_and_locks_nobody_else_out() {
    let plant = Fixture::new();
    let token = NewToken::make().unwrap();
    plant.change("line-3", &Change { token: Some(token.hash.clone()), ..Change::default() });
    let late = hash_password(b"late").unwrap();
    let reader = |hash: &str| Change {
        roles: Some(vec!["reader".into()]),
        password: Some(hash.to_owned()),
        ..Change::default()
    };
    plant.change("late", &reader(&late));
    settled(&plant).await;
    plant.within_a_second("all changes", |book| book.rights_of("late").is_some()).await;
    assert!(plant.login(shown(Some("scada"), Some("pw"))).await.is_ok());
    for nth in 0..NAME_GUESSES {
        assert_eq!(refused(plant.login(shown(Some("scada"), Some("guess"))).await), 0x86, "{nth}");
    }
    assert_eq!(refused(plant.login(shown(Some("scada"), Some("guess"))).await), 0x9F);
    assert!(plant.login(shown(Some("scada"), Some("pw"))).await.is_ok(), "verified before: cheap, passes");
    assert!(plant.login(shown(Some("late"), Some("late"))).await.is_ok(), "another name has its own bucket");
    assert!(plant.login(shown(Some("line-3"), Some(&token.text))).await.is_ok(), "a token always passes");
    let agents = plant.agent_password();
    assert!(plant.login(shown(Some("g/n"), Some(&agents))).await.is_ok());
    let elsewhere = Credentials { peer: ELSEWHERE, ..shown(Some("scada"), Some("guess")) };
    assert_eq!(refused(plant.login(elsewhere).await), 0x86, "another address has its own bucket");
    // Names that nobody has share one bucket, so that they cannot be used to get more guesses.
    for nth in 0..NAME_GUESSES {
        let name = format!("nobody-{nth}");
        assert_eq!(refused(plant.login(shown(Some(&name), Some("guess"))).await), 0x86);
    }
    assert_eq!(refused(plant.login(shown(Some("nobody"), Some("guess"))).await), 0x9F);
    assert_eq!(refused(plant.login(shown(None, Some("guess"))).await), 0x9F);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_try_all_names() {
    let plant = Fixture::new();
    let door = &plant.book.0.doorkeeper;
    let names: Vec<String> = (0..20).map(|nth| format!("agent-{nth}")).collect();
    let taken = names.iter().flat_map(|name| (0..NAME_GUESSES).map(move |_| name));
    let taken = taken.filter(|name| door.take_guess(HERE.ip(), Some(name)).is_ok()).count();
    assert!((60..=70).contains(&taken), "{taken}: one is forgiven each second");
    door.give_guess_back(HERE.ip(), "agent-0");
    assert!(door.take_guess(HERE.ip(), Some("agent-0")).is_ok(), "a right one is given back");
    assert!(door.take_guess(ELSEWHERE.ip(), Some("agent-0")).is_ok());
}

/// A thousand agents that come back cost a thousand SHA-256, not a thousand argon2.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_seen_lately_is_cheap() {
    let plant = Fixture::new();
    let first = Instant::now();
    plant.login(shown(Some("scada"), Some("pw"))).await.unwrap();
    let first = first.elapsed();
    let again = Instant::now();
    for _ in 0..1_000 {
        plant.login(shown(Some("scada"), Some("pw"))).await.unwrap();
    }
    let again = again.elapsed() / 1_000;
    println!("first {first:?}, then {again:?}");
    assert!(again * 10 < first, "{first:?}, then {again:?}");
    let verified = &plant.book.0.doorkeeper.verified;
    for nth in 0..=VERIFIED_MAX {
        verified.add(token_hash(&nth.to_be_bytes()));
    }
    assert!(verified.set.lock().unwrap().len() <= VERIFIED_MAX, "bounded");
}

/// Whether a name exists does not show in the time: both hash once.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_cost_what_known_ones_do() {
    let plant = Fixture::new();
    let mut took = [Duration::MAX; 3];
    for _ in 0..3 {
        for (nth, user) in ["scada", "nobody", "line-3"].into_iter().enumerate() {
            let begun = Instant::now();
            assert_eq!(refused(plant.login(shown(Some(user), Some("wrong"))).await), 0x86);
            took[nth] = took[nth].min(begun.elapsed());
        }
    }
    let (least, most) = (*took.iter().min().unwrap(), *took.iter().max().unwrap());
    assert!(most < least * 3, "{took:?}: a name that costs no hash would be a hundred times faster");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_log_ins_than_can_wait_are_told_that_the_hub_is_busy() {
    let count = AtomicUsize::new(0);
    let places: Vec<_> = (0..WAITING_MAX).map(|_| Waiting::join(&count).unwrap()).collect();
    assert_eq!(Waiting::join(&count).err().unwrap().reason, 0x89);
    assert_eq!(count.load(Ordering::Relaxed), WAITING_MAX, "who is refused does not wait");
    drop(places);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

/// Whoever hangs up while the password is checked has guessed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_early_does_not_save_a_guess() {
    let plant = Fixture::new();
    for _ in 0..NAME_GUESSES {
        let login = plant.login(shown(Some("scada"), Some("guess")));
        assert!(tokio::time::timeout(Duration::from_millis(1), login).await.is_err(), "argon2 takes longer");
    }
    let begun = Instant::now();
    while refused(plant.login(shown(Some("scada"), Some("guess"))).await) != 0x9F {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
