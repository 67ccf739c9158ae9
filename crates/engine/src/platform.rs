//! The platform around verification: people who log in, what they buy, and how it gets into the books.
//!
//! A person owns a caller. *Acquiring* the service activates its application and gives the free quota,
//! once. An order that is paid becomes a payment in the ledger; both files know its number, so that a
//! crash between them is mended by doing it again.

use std::sync::{Arc, MutexGuard, PoisonError};

use serde::Serialize;

use crate::Engine;
use crate::caller::{ApplicationId, CallerId};
use crate::clock::Millis;
use crate::ledger::Credits;
use crate::operator::{Act, Acting, By};
use crate::register::RegisterError;
use crate::store::{Platform, StoreError};
use crate::vault::random;

/// Somebody who logs in with a password.
#[derive(Clone)]
pub struct Person {
    /// Who it is as a caller.
    pub caller: CallerId,
    /// An e-mail address, in small letters.
    pub login: String,
    /// The password as an argon2id hash, in the usual text form.
    pub password: String,
    /// Unix milliseconds.
    pub created_at_ms: Millis,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Person").field("caller", &self.caller).finish_non_exhaustive()
    }
}

/// What a credential is called, and when it was made and used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// A name of its owner's choice; any text.
    pub name: String,
    /// Unix milliseconds; 0: not known, it was made on the command line.
    pub created_at_ms: Millis,
    /// Unix milliseconds.
    pub updated_at_ms: Millis,
    /// Unix milliseconds, to the minute.
    pub used_at_ms: Option<Millis>,
}

/// What can be bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Package {
    /// A version 4 UUID.
    pub id: String,
    /// Its name, for people.
    pub title: String,
    /// How much it gives.
    pub credits: Credits,
    /// What it costs, in hundredths of the installation's currency.
    pub price_cents: i64,
}

/// How an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum OrderState {
    /// Nobody has paid yet.
    Pending,
    /// Paid, and on its way into the books.
    Paid,
    /// In the books.
    Finished,
    /// Taken back out of them.
    Refunded,
    /// Called off before it was paid.
    Failed,
}

impl OrderState {
    /// Every state.
    pub const ALL: [OrderState; 5] = [
        OrderState::Pending,
        OrderState::Paid,
        OrderState::Finished,
        OrderState::Refunded,
        OrderState::Failed,
    ];

    /// The name on the management API.
    pub const fn name(self) -> &'static str {
        match self {
            OrderState::Pending => "Pending",
            OrderState::Paid => "Paid",
            OrderState::Finished => "Finished",
            OrderState::Refunded => "Refunded",
            OrderState::Failed => "Failed",
        }
    }
}

/// How an order is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PayWay {
    /// To the operator's account; the operator finishes the order.
    BankTransfer,
    /// With a voucher.
    RechargeCard,
    /// A gift of the operator's.
    Reward,
}

impl PayWay {
    /// Every way.
    pub const ALL: [PayWay; 3] = [PayWay::BankTransfer, PayWay::RechargeCard, PayWay::Reward];

    /// The name on the management API.
    pub const fn name(self) -> &'static str {
        match self {
            PayWay::BankTransfer => "BankTransfer",
            PayWay::RechargeCard => "RechargeCard",
            PayWay::Reward => "Reward",
        }
    }
}

/// An order of credits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// A version 4 UUID.
    pub id: String,
    /// Whose it is.
    pub caller: CallerId,
    /// What was ordered; `None`: a voucher or a gift.
    pub package: Option<String>,
    /// What it is, for people.
    pub description: String,
    /// How much it gives.
    pub credits: Credits,
    /// What it costs, in hundredths of the installation's currency.
    pub price_cents: i64,
    /// How it stands.
    pub state: OrderState,
    /// How it is paid; `None`: not chosen yet.
    pub pay_way: Option<PayWay>,
    /// Unix milliseconds.
    pub created_at_ms: Millis,
    /// Unix milliseconds.
    pub updated_at_ms: Millis,
    /// Unix milliseconds.
    pub finished_at_ms: Option<Millis>,
}

impl Order {
    /// A new order, to be paid.
    pub fn new(caller: CallerId, description: String, credits: Credits, now: Millis) -> Order {
        Order {
            id: crate::verify::uuid_text(&crate::verify::new_request_id()),
            caller,
            package: None,
            description,
            credits,
            price_cents: 0,
            state: OrderState::Pending,
            pay_way: None,
            created_at_ms: now,
            updated_at_ms: now,
            finished_at_ms: None,
        }
    }

    /// What its payment is known by in the books, or that payment's return.
    fn reference(&self, refund: bool) -> [u8; 16] {
        let hex: String = self.id.chars().filter(|c| *c != '-').collect();
        let bytes = crate::file::unhex(&hex).and_then(|bytes| bytes.try_into().ok());
        let mut reference: [u8; 16] = bytes.unwrap_or_default();
        // Byte 6 begins with a UUID's version: 4 for the order, 8 for its refund.
        reference[6] = (reference[6] & 0x0f) | if refund { 0x80 } else { 0x40 };
        reference
    }
}

/// A voucher as it is listed: its code is never seen again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The last four characters of its code.
    pub last4: String,
    /// How much it gives.
    pub credits: Credits,
    /// Unix milliseconds.
    pub created_at_ms: Millis,
    /// Who redeemed it.
    pub redeemed_by: Option<CallerId>,
}

/// Why an order or a person is not taken further.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The login is somebody's already.
    #[error("there is an account with this e-mail address; log in instead")]
    LoginTaken,
    /// The service is activated already.
    #[error("Item already exists.")]
    Acquired,
    /// No such order, voucher, package or invitation.
    #[error("there is no such {0}")]
    Unknown(&'static str),
    /// The order stands where this cannot be done.
    #[error("the order is {state}: it cannot be {done}")]
    State {
        /// How it stands.
        state: &'static str,
        /// What was to be done with it.
        done: &'static str,
    },
    /// The callers or the books.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A voucher's or an invitation's code: 24 letters and digits that cannot be mistaken for one another,
/// 115 bits of them.
pub fn new_code() -> String {
    const LETTERS: &[u8; 28] = b"ABCDEFGHJKMNPQRSTUVWXYZ34679";
    let mut code = String::new();
    while code.len() < 24 {
        // Bytes past the largest multiple of 28 are thrown away: each letter is equally likely.
        let drawn = random::<32>().into_iter().filter(|byte| *byte < 252);
        code.extend(drawn.map(|byte| LETTERS[usize::from(byte) % 28] as char).take(24 - code.len()));
    }
    code
}

const DAY_MS: i64 = 86_400_000;

impl Engine {
    /// The platform's own file: people, orders, vouchers.
    pub fn platform(&self) -> MutexGuard<'_, Platform> {
        // Each verb of the file is one transaction; a panic leaves nothing half done.
        self.platform.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what was paid before a crash.
    pub(crate) fn resume_orders(self: &Arc<Engine>) -> Result<(), StoreError> {
        let paid = self.platform().paid_orders()?;
        for id in paid {
            if let Err(error) = self.acting(By::Machine).finish_order(&id, None) {
                tracing::error!(%error, order = id, "a paid order could not be carried out; finish it again");
            }
        }
        Ok(())
    }
}

impl Acting<'_> {
    /// Adds a person and the caller they own.
    ///
    /// # Errors
    /// The login or the caller's name is taken, or the name is none.
    pub fn register(&self, name: &str, login: &str, password: String) -> Result<CallerId, PlatformError> {
        if self.platform().person(login)?.is_some() {
            return Err(PlatformError::LoginTaken);
        }
        let caller = self.register_caller(name)?;
        let created_at_ms = self.clock.now_ms();
        let person = Person { caller, login: login.to_owned(), password, created_at_ms };
        // Somebody else may have been faster with the same login: then a caller without a person is left.
        if self.platform().add_person(&person)? { Ok(caller) } else { Err(PlatformError::LoginTaken) }
    }

    /// Activates the service for a caller and gives it the free quota; that once in its life.
    pub fn acquire(&self, caller: CallerId, free: Credits) -> Result<ApplicationId, PlatformError> {
        let application = ApplicationId(caller.0);
        let is_new = self.directory().application(application).is_some_and(|(app, _)| app.actions.is_empty());
        if !is_new {
            return Err(PlatformError::Acquired);
        }
        if free > Credits::ZERO {
            let mut reference = *b"card4e free....\0";
            reference[11..15].copy_from_slice(&application.0.to_be_bytes());
            self.pay(application, free, reference)?;
        }
        if !self.activate(caller)? {
            return Err(PlatformError::Acquired);
        }
        self.platform().acquired(application, self.clock.now_ms())?;
        Ok(application)
    }

    /// Puts a package on the shelf.
    pub fn put_package(&self, package: &Package) -> Result<(), PlatformError> {
        let Package { id, credits, price_cents, .. } = package;
        let (package_id, credits, price_cents) = (id.clone(), *credits, *price_cents);
        self.record_act(Act::PackagePut { package: package_id, credits, price_cents })?;
        Ok(self.platform().put_package(package)?)
    }

    /// Takes a package off the shelf; orders of it stay.
    pub fn drop_package(&self, id: &str) -> Result<(), PlatformError> {
        if !self.platform().packages()?.iter().any(|package| package.id == id) {
            return Err(PlatformError::Unknown("package"));
        }
        self.record_act(Act::PackageDropped { package: id.to_owned() })?;
        self.platform().drop_package(id)?;
        Ok(())
    }

    /// Makes vouchers; their codes are never to be seen again.
    pub fn issue_vouchers(&self, count: u32, credits: Credits) -> Result<Vec<String>, PlatformError> {
        self.record_act(Act::VouchersIssued { count, credits })?;
        let codes: Vec<String> = (0..count).map(|_| new_code()).collect();
        self.platform().add_vouchers(&codes, credits, self.clock.now_ms())?;
        Ok(codes)
    }

    /// Makes an invitation that is valid for so many days; gives its code and its end.
    pub fn invite(&self, days: u32) -> Result<(String, Millis), PlatformError> {
        let (code, until_ms) = (new_code(), self.clock.now_ms() + i64::from(days) * DAY_MS);
        self.record_act(Act::Invited { until_ms })?;
        self.platform().invite(&code, until_ms)?;
        Ok((code, until_ms))
    }

    /// Lets a person choose another password: gives a code that is valid once, for a day. One that was made
    /// before is no longer valid.
    pub fn allow_password_reset(&self, login: &str) -> Result<(String, Millis), PlatformError> {
        let person = self.platform().person(&login.to_lowercase())?;
        let caller = person.ok_or(PlatformError::Unknown("person with this e-mail address"))?.caller;
        let (code, until_ms) = (new_code(), self.clock.now_ms() + DAY_MS);
        self.record_act(Act::PasswordResetAllowed { caller, until_ms })?;
        self.platform().allow_reset(&code, caller, until_ms)?;
        Ok((code, until_ms))
    }

    /// Uses such a code up: the person has another password now, and no session.
    pub fn reset_password(&self, code: &str, password: &str) -> Result<CallerId, PlatformError> {
        let now = self.clock.now_ms();
        let unknown = || PlatformError::Unknown("code that is still valid");
        let caller = self.platform().reset_of(code, now)?.ok_or_else(unknown)?;
        self.record_act(Act::PasswordSet { caller })?;
        let caller = self.platform().take_reset(code, now)?.ok_or_else(unknown)?;
        self.platform().set_password(caller, password)?;
        Ok(caller)
    }

    /// Gives a person another password and ends all their sessions.
    pub fn set_password(&self, caller: CallerId, password: &str) -> Result<(), PlatformError> {
        self.record_act(Act::PasswordSet { caller })?;
        Ok(self.platform().set_password(caller, password)?)
    }

    /// Makes an order in somebody else's name.
    pub fn make_order(&self, order: &Order) -> Result<(), PlatformError> {
        let application = ApplicationId(order.caller.0);
        let Order { id, credits, price_cents, .. } = order;
        let (id, credits, price_cents) = (id.clone(), *credits, *price_cents);
        self.record_act(Act::OrderMade { order: id, application, credits, price_cents })?;
        Ok(self.platform().add_order(order)?)
    }

    /// Gives an order that waits to be paid another price.
    pub fn set_price(&self, id: &str, price_cents: i64) -> Result<Order, PlatformError> {
        let order = self.platform().order(id)?.ok_or(PlatformError::Unknown("order"))?;
        let refused = PlatformError::State { state: order.state.name(), done: "given another price" };
        if order.state != OrderState::Pending {
            return Err(refused);
        }
        self.record_act(Act::OrderPriced { order: id.to_owned(), price_cents })?;
        if !self.platform().set_price(id, price_cents, self.clock.now_ms())? {
            return Err(refused);
        }
        self.platform().order(id)?.ok_or(PlatformError::Unknown("order"))
    }

    /// Carries a paid order out, or confirms that it was paid and does so.
    pub fn finish_order(&self, id: &str, pay_way: Option<PayWay>) -> Result<Order, PlatformError> {
        let order = self.platform().order(id)?.ok_or(PlatformError::Unknown("order"))?;
        if !matches!(order.state, OrderState::Pending | OrderState::Paid) {
            return Err(PlatformError::State { state: order.state.name(), done: "finished" });
        }
        let pay_way = order.pay_way.or(pay_way).unwrap_or(PayWay::BankTransfer);
        let now = self.clock.now_ms();
        let application = ApplicationId(order.caller.0);
        if !self.books().has_payment(&order.reference(false)) {
            let (order, credits) = (order.id.clone(), order.credits);
            self.record_act(Act::OrderFinished { order, application, credits })?;
        }
        self.platform().set_order(id, OrderState::Paid, Some(pay_way), now)?;
        self.pay(application, order.credits, order.reference(false))?;
        self.platform().set_order(id, OrderState::Finished, None, now)?;
        self.platform().order(id)?.ok_or(PlatformError::Unknown("order"))
    }

    /// Takes a finished order back: what it gave must still be there.
    pub fn refund_order(&self, id: &str) -> Result<Order, PlatformError> {
        let order = self.platform().order(id)?.ok_or(PlatformError::Unknown("order"))?;
        if order.state != OrderState::Finished {
            return Err(PlatformError::State { state: order.state.name(), done: "refunded" });
        }
        let application = ApplicationId(order.caller.0);
        if !self.books().has_payment(&order.reference(true)) {
            let (order, credits) = (order.id.clone(), order.credits);
            self.record_act(Act::OrderRefunded { order, application, credits })?;
        }
        self.take_back(application, order.credits, order.reference(true))?;
        self.platform().set_order(id, OrderState::Refunded, None, self.clock.now_ms())?;
        self.platform().order(id)?.ok_or(PlatformError::Unknown("order"))
    }

    /// Redeems a voucher for a caller.
    pub fn redeem(&self, caller: CallerId, code: &str) -> Result<Order, PlatformError> {
        let now = self.clock.now_ms();
        let order = Order {
            state: OrderState::Paid,
            pay_way: Some(PayWay::RechargeCard),
            ..Order::new(caller, "Voucher".into(), Credits::ZERO, now)
        };
        let id = order.id.clone();
        if !self.platform().redeem(code, &order)? {
            return Err(PlatformError::Unknown("voucher that has not been redeemed"));
        }
        self.finish_order(&id, None)
    }
}
