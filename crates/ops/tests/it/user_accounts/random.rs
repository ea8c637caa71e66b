//! Random sequences of invitations and sign-ins by the owner of an email and by an attacker who can only read what
//! organisations see. `check` verifies the invariants after each step.

use std::collections::BTreeSet;

use waypost_core::Random;
use waypost_core::account::CodePurpose;
use waypost_core::caller::Caller;
use waypost_core::id::OrganizationId;
use waypost_core::organization::Role;
use waypost_core::random::SeededRandom;
use waypost_ops::api_keys::{self, CreateApiKey};
use waypost_ops::invitations::{self, InvitationWithSecret};
use waypost_ops::user_accounts::{AccountDetails, NewUserSession, ProviderIdentity, create_account_link};
use waypost_ops::{organizations, user_sessions, users};

use super::{DEVICE, FINE, MINUTE, OTHER, Users, open};

const VICTIM: &str = "victim@big.example";
const STEPS: usize = 60;
const SLUGS: [&str; 3] = ["first", "second", "third"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Person {
    /// Receives the emails.
    Owner,
    /// Sees everything that the API returns.
    Attacker,
}

/// A session of one of the two.
struct Held {
    person: Person,
    token: String,
    /// Whether the session started with a code, an emailed link or a provider.
    proven: bool,
    /// The number of times that the owner had verified the email before.
    proofs: usize,
}

struct World<'a> {
    users: &'a Users,
    random: SeededRandom,
    organizations: Vec<OrganizationId>,
    links: Vec<(usize, InvitationWithSecret, bool)>,
    sessions: Vec<Held>,
    keys: Vec<(Person, usize, String, usize)>,
    /// The organisations whose links each person has used.
    accepted: BTreeSet<(Person, usize)>,
    /// Whether the owner has ever verified the email.
    verified: bool,
    /// The number of times that the owner has verified the email in a way that revokes what others prepared: not with
    /// an already linked provider.
    proofs: usize,
    linked: bool,
    steps: Vec<String>,
}

impl World<'_> {
    fn pick(&self, below: usize) -> usize {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % below as u64).unwrap()
    }

    fn person(&self) -> Person {
        if self.pick(2) == 0 { Person::Owner } else { Person::Attacker }
    }

    fn account_details(person: Person) -> AccountDetails<'static> {
        match person {
            Person::Owner => AccountDetails { name: "Vera", password: OTHER },
            Person::Attacker => AccountDetails { name: "Mallory", password: FINE },
        }
    }

    fn note(&mut self, person: Person, session: NewUserSession, proven: bool) {
        self.verified |= proven;
        self.sessions.push(Held { person, token: session.token, proven, proofs: self.proofs });
    }

    /// Whether the owner of the email has not signed in yet, so that the attacker can prepare.
    fn is_early(&self) -> bool {
        self.steps.len() <= STEPS / 2
    }

    async fn step(&mut self) {
        let (users, ops) = (self.users, &self.users.stage.ops);
        let (person, at) = (self.person(), self.pick(SLUGS.len()));
        let kind = self.pick(9);
        self.steps.push(format!("{kind} {person:?} {}", SLUGS[at]));
        match kind {
            0 | 1 => {
                let org = &self.organizations[at];
                let Ok(made) = invitations::create(&users.operator(), ops, org, VICTIM, Role::Owner).await else {
                    return;
                };
                let emailed = kind == 1;
                if emailed {
                    invitations::mark_emailed(&users.operator(), ops, &made).await.unwrap();
                }
                self.links.push((at, made, emailed));
            }
            2 => self.use_invitation_link(person).await,
            3 => {
                let org = &self.organizations[at];
                let Ok(member) = users::resolve(&users.operator(), ops, org, VICTIM).await else { return };
                let mut conn = ops.db().read().await.unwrap();
                let user = waypost_store::user::find(&mut conn, &member.user_id).await.unwrap().unwrap();
                drop(conn);
                if user.verified_at.is_some() {
                    // This would be a recovery, which only the operator can start, for the owner.
                    return;
                }
                let link = create_account_link(&users.operator(), ops, org, &member.user_id).await.unwrap();
                let used = users
                    .accounts
                    .use_account_link(&users.cx(), &link.token, Self::account_details(person), DEVICE)
                    .await;
                self.accepted.insert((person, at));
                self.note(person, used.unwrap(), false);
            }
            4 if self.is_early() => self.use_invitation_link(Person::Attacker).await,
            4 => self.prove().await,
            5 => {
                let password = Self::account_details(person).password;
                if let Ok(session) = users.by_password_to(VICTIM, password, SLUGS[at]).await {
                    self.note(person, session, false);
                }
            }
            6 => {
                let org = &self.organizations[at];
                users::create(&users.operator(), ops, org, VICTIM, Role::Owner).await.ok();
            }
            7 => self.make_key(at).await,
            _ => {
                let org = &self.organizations[at];
                if let Ok(member) = users::resolve(&users.operator(), ops, org, VICTIM).await {
                    users::delete(&users.operator(), ops, org, &member.user_id).await.ok();
                    // The keys of a removed member remain and belong to the organisation.
                    self.keys.retain(|(_, of, _, _)| *of != at);
                }
            }
        }
    }

    /// Uses a random link that the person can read, with one of their sessions or with a new account.
    async fn use_invitation_link(&mut self, person: Person) {
        let readable: Vec<_> = self
            .links
            .iter()
            .filter(|(_, _, emailed)| !emailed || (person == Person::Owner && !self.is_early()))
            .collect();
        if readable.is_empty() {
            return;
        }
        let (at, secret, emailed) = {
            let (at, made, emailed) = readable[self.pick(readable.len())];
            (*at, made.secret.clone(), *emailed)
        };
        let accounts = &self.users.accounts;
        for held in self.sessions.iter().filter(|held| held.person == person) {
            let found = user_sessions::find(&self.users.cx(), &self.users.stage.ops, &held.token).await.unwrap();
            let Some(session) = found else { continue };
            if accounts.accept_invitation(&self.users.as_user(&session.user_id), &secret).await.is_ok() {
                self.accepted.insert((person, at));
                return;
            }
        }
        let account_details = Self::account_details(person);
        if let Ok((session, _)) = accounts.accept_and_sign_up(&self.users.cx(), &secret, account_details, DEVICE).await
        {
            if emailed {
                self.prove_again();
            }
            self.accepted.insert((person, at));
            self.note(person, session, emailed);
        }
    }

    /// From now on, everything that the attacker prepared is revoked.
    fn prove_again(&mut self) {
        self.proofs += 1;
        self.accepted.retain(|(person, _)| *person == Person::Owner);
    }

    /// The owner verifies the email with a code or a provider.
    async fn prove(&mut self) {
        let by_code = self.pick(2) == 0;
        let session = if by_code {
            let Ok(made) = self.users.ask(VICTIM, CodePurpose::SignIn, None).await else { return };
            self.users.enter(made.id.as_str(), &made.code).await
        } else {
            let identity = ProviderIdentity {
                issuer: "https://id.example".to_owned(),
                subject: "1".to_owned(),
                email: Some(VICTIM.to_owned()),
                name: None,
            };
            self.users.accounts.sign_in_with_provider(&self.users.cx(), &identity, DEVICE).await
        };
        if let Ok(session) = session {
            if by_code || !self.linked {
                self.prove_again();
            }
            self.linked |= !by_code;
            self.note(Person::Owner, session, true);
        }
    }

    /// Creates a key in an organisation with a session that can access it.
    async fn make_key(&mut self, at: usize) {
        for held in &self.sessions {
            let reach = self.users.reach(&held.token).await.unwrap_or_default();
            if !reach.contains(&SLUGS[at].to_owned()) {
                continue;
            }
            let (cx, ops) = (self.users.cx(), &self.users.stage.ops);
            let session = user_sessions::find(&cx, ops, &held.token).await.unwrap().unwrap();
            let organization_id = self.organizations[at].clone();
            let actor = session.user_id.to_string();
            let cx = self.users.by(Caller::Member { organization_id, role: Role::Owner, actor });
            let name = format!("key {}", self.steps.len());
            let new = CreateApiKey { name: &name, scope: Role::Owner, expires_at: None };
            let made = api_keys::create(&cx, ops, &self.organizations[at], new).await.unwrap();
            self.keys.push((held.person, at, made.1, self.proofs));
            return;
        }
    }

    /// No session can access an organisation unless the email was verified for it by email or by a provider, or the
    /// same person has accepted an invitation of that organisation. Whenever the owner verifies the email, everything
    /// of others ends; after that, others can only get what an organisation shows them itself: a new account for that
    /// organisation.
    async fn check(&self) {
        for held in &self.sessions {
            let Some(reach) = self.users.reach(&held.token).await else { continue };
            assert!(
                held.person == Person::Owner || held.proofs == self.proofs,
                "a session of the attacker outlived a verification of the email: {:#?}",
                self.steps
            );
            for slug in reach {
                let at = SLUGS.iter().position(|it| *it == slug).unwrap();
                let is_fine = held.proven
                    || (self.verified && held.person == Person::Owner)
                    || self.accepted.contains(&(held.person, at));
                assert!(is_fine, "{:?} can access {slug}: {:#?}", held.person, self.steps);
            }
        }
        for (person, at, key, proofs) in &self.keys {
            let caller = api_keys::authenticate(&self.users.cx(), &self.users.stage.ops, key).await.unwrap();
            let attackers = *person == Person::Attacker;
            assert!(
                caller.is_none() || !attackers || *proofs == self.proofs,
                "a key of the attacker: {:#?}",
                self.steps
            );
            assert!(caller.is_none() || !attackers || self.accepted.contains(&(*person, *at)), "{:#?}", self.steps);
        }
    }
}

async fn no_session_can_access_more_than_it_should(users: Users) {
    let mut organizations = Vec::new();
    for slug in SLUGS {
        organizations.push(organizations::create(&users.operator(), &users.stage.ops, slug, None).await.unwrap().id);
    }
    let (mut verified, mut attacks) = (0, 0);
    for seed in 0..6 {
        let mut world = World {
            users: &users,
            random: SeededRandom::new(seed),
            organizations: organizations.clone(),
            links: Vec::new(),
            sessions: Vec::new(),
            keys: Vec::new(),
            accepted: BTreeSet::new(),
            verified: false,
            proofs: 0,
            linked: false,
            steps: vec![format!("seed {seed}")],
        };
        for _ in 0..STEPS {
            // Beyond the limits of codes and wrong passwords.
            users.clock.advance(61 * MINUTE);
            world.step().await;
            world.check().await;
        }
        verified += usize::from(world.verified);
        attacks += world.sessions.iter().filter(|held| held.person == Person::Attacker).count();
        // The next sequence starts with an unused email.
        let mut tx = users.stage.ops.db().begin().await.unwrap();
        for sql in ["DELETE FROM users", "DELETE FROM invitations", "DELETE FROM api_keys", "DELETE FROM user_codes"] {
            waypost_store::on!(&mut tx, c => sqlx::query(sql).execute(c).await.unwrap().rows_affected());
        }
        tx.commit().await.unwrap();
    }
    assert!(verified >= 3 && attacks >= 6, "the sequences contain verifications and attacks: {verified} {attacks}");
}

waypost_testkit::both!(open => no_session_can_access_more_than_it_should);
