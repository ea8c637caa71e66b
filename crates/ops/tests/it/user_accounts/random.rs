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

use super::{DEVICE, MINUTE, OTHER_PASSWORD, PASSWORD, UserTest, set_up};

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

/// A session of the owner or the attacker.
struct PersonSession {
    person: Person,
    token: String,
    /// Whether the session started with a code, an emailed link or a provider.
    is_verified: bool,
    /// The number of times that the owner had verified the email before.
    verifications: usize,
}

struct Simulation<'a> {
    test: &'a UserTest,
    random: SeededRandom,
    organizations: Vec<OrganizationId>,
    links: Vec<(usize, InvitationWithSecret, bool)>,
    sessions: Vec<PersonSession>,
    keys: Vec<(Person, usize, String, usize)>,
    /// The organisations whose links each person has used.
    accepted: BTreeSet<(Person, usize)>,
    /// Whether the owner has ever verified the email.
    verified: bool,
    /// The number of times that the owner has verified the email in a way that revokes what others prepared: not with
    /// an already linked provider.
    verifications: usize,
    linked: bool,
    steps: Vec<String>,
}

impl Simulation<'_> {
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
            Person::Owner => AccountDetails { name: "Vera", password: OTHER_PASSWORD },
            Person::Attacker => AccountDetails { name: "Mallory", password: PASSWORD },
        }
    }

    fn add_session(&mut self, person: Person, session: NewUserSession, is_verified: bool) {
        self.verified |= is_verified;
        self.sessions.push(PersonSession {
            person,
            token: session.token,
            is_verified,
            verifications: self.verifications,
        });
    }

    /// Whether the owner does not verify the email yet, so that the attacker can prepare.
    fn is_early(&self) -> bool {
        self.steps.len() <= STEPS / 2
    }

    async fn step(&mut self) {
        let (test, ops) = (self.test, &self.test.fixture.ops);
        let (person, at) = (self.person(), self.pick(SLUGS.len()));
        let kind = self.pick(9);
        self.steps.push(format!("{kind} {person:?} {}", SLUGS[at]));
        match kind {
            0 | 1 => {
                let org = &self.organizations[at];
                let Ok(created) = invitations::create(&test.operator_context(), ops, org, VICTIM, Role::Owner).await
                else {
                    return;
                };
                let emailed = kind == 1;
                if emailed {
                    invitations::mark_emailed(&test.operator_context(), ops, &created).await.unwrap();
                }
                self.links.push((at, created, emailed));
            }
            2 => self.use_invitation_link(person).await,
            3 => {
                let org = &self.organizations[at];
                let Ok(member) = users::resolve(&test.operator_context(), ops, org, VICTIM).await else { return };
                let mut conn = ops.store().read().await.unwrap();
                let user = waypost_store::user::find(&mut conn, &member.user_id).await.unwrap().unwrap();
                drop(conn);
                if user.verified_at.is_some() {
                    // This would be a recovery, which only the operator can start, for the owner.
                    return;
                }
                let link = create_account_link(&test.operator_context(), ops, org, &member.user_id).await.unwrap();
                let used = test
                    .accounts
                    .use_account_link(&test.visitor_context(), &link.token, Self::account_details(person), DEVICE)
                    .await;
                self.accepted.insert((person, at));
                self.add_session(person, used.unwrap(), false);
            }
            4 if self.is_early() => self.use_invitation_link(Person::Attacker).await,
            4 => self.verify_email().await,
            5 => {
                let password = Self::account_details(person).password;
                if let Ok(session) = test.sign_in_to_organization(VICTIM, password, SLUGS[at]).await {
                    self.add_session(person, session, false);
                }
            }
            6 => {
                let org = &self.organizations[at];
                users::create(&test.operator_context(), ops, org, VICTIM, Role::Owner).await.ok();
            }
            7 => self.create_key(at).await,
            _ => {
                let org = &self.organizations[at];
                if let Ok(member) = users::resolve(&test.operator_context(), ops, org, VICTIM).await {
                    users::delete(&test.operator_context(), ops, org, &member.user_id).await.ok();
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
            let (at, created, emailed) = readable[self.pick(readable.len())];
            (*at, created.secret.clone(), *emailed)
        };
        let accounts = &self.test.accounts;
        for person_session in self.sessions.iter().filter(|person_session| person_session.person == person) {
            let found =
                user_sessions::find(&self.test.visitor_context(), &self.test.fixture.ops, &person_session.token)
                    .await
                    .unwrap();
            let Some(session) = found else { continue };
            if accounts.accept_invitation(&self.test.user_context(&session.user_id), &secret).await.is_ok() {
                self.accepted.insert((person, at));
                return;
            }
        }
        let account_details = Self::account_details(person);
        if let Ok((session, _)) =
            accounts.accept_and_sign_up(&self.test.visitor_context(), &secret, account_details, DEVICE).await
        {
            if emailed {
                self.record_verification();
            }
            self.accepted.insert((person, at));
            self.add_session(person, session, emailed);
        }
    }

    /// Records that the owner has verified the email, which revokes everything that the attacker prepared.
    fn record_verification(&mut self) {
        self.verifications += 1;
        self.accepted.retain(|(person, _)| *person == Person::Owner);
    }

    /// The owner verifies the email with a code or a provider.
    async fn verify_email(&mut self) {
        let by_code = self.pick(2) == 0;
        let session = if by_code {
            let Ok(created) = self.test.request_code(VICTIM, CodePurpose::SignIn, None).await else { return };
            self.test.enter_code(created.id.as_str(), &created.code).await
        } else {
            let identity = ProviderIdentity {
                issuer: "https://id.example".to_owned(),
                subject: "1".to_owned(),
                email: Some(VICTIM.to_owned()),
                name: None,
            };
            self.test.accounts.sign_in_with_provider(&self.test.visitor_context(), &identity, DEVICE).await
        };
        if let Ok(session) = session {
            if by_code || !self.linked {
                self.record_verification();
            }
            self.linked |= !by_code;
            self.add_session(Person::Owner, session, true);
        }
    }

    /// Creates a key in an organisation with a session that can access it.
    async fn create_key(&mut self, index: usize) {
        for person_session in &self.sessions {
            let slugs = self.test.list_accessible_slugs(&person_session.token).await.unwrap_or_default();
            if !slugs.contains(&SLUGS[index].to_owned()) {
                continue;
            }
            let (cx, ops) = (self.test.visitor_context(), &self.test.fixture.ops);
            let session = user_sessions::find(&cx, ops, &person_session.token).await.unwrap().unwrap();
            let organization_id = self.organizations[index].clone();
            let actor = session.user_id.to_string();
            let cx = self.test.context(Caller::Member { organization_id, role: Role::Owner, actor });
            let name = format!("key {}", self.steps.len());
            let new = CreateApiKey { name: &name, scope: Role::Owner, expires_at: None };
            let created = api_keys::create(&cx, ops, &self.organizations[index], new).await.unwrap();
            self.keys.push((person_session.person, index, created.1, self.verifications));
            return;
        }
    }

    /// Asserts that no session can access an organisation unless its person has verified the email, or has used a link
    /// of that organisation. Each verification by the owner ends the sessions and keys of the attacker, who can then
    /// only create a new account with a link that an organisation shows, for that organisation.
    async fn check(&self) {
        for person_session in &self.sessions {
            let Some(slugs) = self.test.list_accessible_slugs(&person_session.token).await else { continue };
            assert!(
                person_session.person == Person::Owner || person_session.verifications == self.verifications,
                "a session of the attacker outlived a verification of the email: {:#?}",
                self.steps
            );
            for slug in slugs {
                let index = SLUGS.iter().position(|other| *other == slug).unwrap();
                let is_allowed = person_session.is_verified
                    || (self.verified && person_session.person == Person::Owner)
                    || self.accepted.contains(&(person_session.person, index));
                assert!(is_allowed, "{:?} can access {slug}: {:#?}", person_session.person, self.steps);
            }
        }
        for (person, at, key, verifications) in &self.keys {
            let caller =
                api_keys::authenticate(&self.test.visitor_context(), &self.test.fixture.ops, key).await.unwrap();
            let is_attacker = *person == Person::Attacker;
            assert!(
                caller.is_none() || !is_attacker || *verifications == self.verifications,
                "a key of the attacker: {:#?}",
                self.steps
            );
            assert!(caller.is_none() || !is_attacker || self.accepted.contains(&(*person, *at)), "{:#?}", self.steps);
        }
    }
}

async fn no_session_can_access_more_than_it_should(test: UserTest) {
    let mut organizations = Vec::new();
    for slug in SLUGS {
        organizations
            .push(organizations::create(&test.operator_context(), &test.fixture.ops, slug, None).await.unwrap().id);
    }
    let (mut verified, mut attacks) = (0, 0);
    for seed in 0..6 {
        let mut simulation = Simulation {
            test: &test,
            random: SeededRandom::new(seed),
            organizations: organizations.clone(),
            links: Vec::new(),
            sessions: Vec::new(),
            keys: Vec::new(),
            accepted: BTreeSet::new(),
            verified: false,
            verifications: 0,
            linked: false,
            steps: vec![format!("seed {seed}")],
        };
        for _ in 0..STEPS {
            // Long enough for the limits of codes and wrong passwords to reset.
            test.clock.advance(61 * MINUTE);
            simulation.step().await;
            simulation.check().await;
        }
        verified += usize::from(simulation.verified);
        attacks +=
            simulation.sessions.iter().filter(|person_session| person_session.person == Person::Attacker).count();
        // The next sequence starts with an unused email.
        let mut tx = test.fixture.ops.store().begin().await.unwrap();
        for sql in ["DELETE FROM users", "DELETE FROM invitations", "DELETE FROM api_keys", "DELETE FROM user_codes"] {
            waypost_store::on!(&mut tx, c => sqlx::query(sql).execute(c).await.unwrap().rows_affected());
        }
        tx.commit().await.unwrap();
    }
    assert!(verified >= 3 && attacks >= 6, "the sequences contain verifications and attacks: {verified} {attacks}");
}

waypost_testkit::both!(extended set_up => no_session_can_access_more_than_it_should);
