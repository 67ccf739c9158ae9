//! The keys of one moment in working form, and what is computed with them.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    BlindIndex, ById, ByMobile, COLUMNS, Cmac, Column, Elements, Head, KeyRing, KeyUse, KeyedRef, Messages,
    Seal, Unsealed, Verifier,
};
use super::{Verifiers, nonce};

/// All keys of one moment: of each use the newest version first, then those that only read.
pub struct Keys {
    inner: Cmac,
    accounts: Vec<AccountKeys>,
    subject: Vec<Cmac>,
    token: Vec<(u8, Cmac)>,
    idempotency: Vec<Cmac>,
    job: Cmac,
    side: Vec<(u32, Aes256Gcm)>,
    credential: Vec<(u32, Aes256Gcm)>,
    signing: (u32, SigningKey),
    audit_public: Vec<(u32, [u8; 32])>,
    receipts: SigningKey,
    receipts_public: Vec<[u8; 32]>,
    envelopes_rsa: Vec<(u32, Zeroizing<Vec<u8>>)>,
    envelopes_sm2: Vec<(u32, Zeroizing<Vec<u8>>)>,
}

/// Keeps what these values hold out of swap space; whether the system let us. The pages stay locked when
/// the values are gone: others may share them.
pub(super) fn keep_out_of_swap<T>(values: &[T]) -> bool {
    let bytes = size_of_val(values);
    bytes == 0 || region::lock(values.as_ptr(), bytes).map(std::mem::forget).is_ok()
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// The replaceable keys over accounts: they wrap index and verifiers and authenticate the row. All
/// are replaced together, so that a row has one version.
pub struct AccountKeys {
    /// Which version; stored with each row.
    pub version: u32,
    row: Cmac,
    index: Aes256,
    columns: [Aes256; 4],
    person: Aes256,
}

impl std::fmt::Debug for AccountKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountKeys({}, …)", self.version)
    }
}

impl AccountKeys {
    fn new(ring: &KeyRing, version: u32) -> Option<AccountKeys> {
        let cipher = |usage| ring.secret(usage, version).map(|key| Aes256::new(&Array::from(*key)));
        Some(AccountKeys {
            version,
            row: Cmac::new(ring.secret(KeyUse::Row, version)?),
            index: cipher(KeyUse::WrapIndex)?,
            columns: [
                cipher(KeyUse::WrapNameExact)?,
                cipher(KeyUse::WrapNameLoose)?,
                cipher(KeyUse::WrapId)?,
                cipher(KeyUse::WrapMobile)?,
            ],
            person: cipher(KeyUse::WrapPerson)?,
        })
    }

    /// Covers what the verifiers do not: state, kind, and which row they stand in.
    pub fn row_mac(&self, row: &[&[u8]]) -> [u8; 16] {
        let [tag] = self.row.macs([row]);
        tag
    }

    /// The same of many rows, side by side.
    pub(crate) fn row_macs(&self, rows: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<[u8; 16]> {
        let mut messages = Messages::with_room_for(rows.size_hint().0);
        rows.for_each(|row| messages.push(&self.row, &[row.as_ref()]));
        self.row.tags(&messages).into_iter().map(|tag| tag.0).collect()
    }

    /// Index and verifiers without their wrapping. Never stored, never shown: with the inner key they
    /// could be enumerated.
    pub(crate) fn unwrapped(&self, index: &BlindIndex, verifiers: &Verifiers) -> Unwrapped {
        let open = |cipher: &Aes256, block: [u8; 16]| {
            let mut block = Array::from(block);
            cipher.decrypt_block(&mut block);
            block.into()
        };
        let columns = columns(verifiers).map(|(column, verifier)| open(self.column(column), verifier.0));
        Unwrapped(Zeroizing::new((open(&self.index, index.0), columns)))
    }

    /// An index under these keys as it is under others.
    pub(crate) fn index_under(&self, index: &BlindIndex, other: &AccountKeys) -> BlindIndex {
        let mut block = Array::from(index.0);
        self.index.decrypt_block(&mut block);
        BlindIndex(wrapped(&other.index, block.into()))
    }

    /// Wraps them again, with these keys.
    pub(crate) fn wrapped(&self, inner: &Unwrapped) -> (BlindIndex, Verifiers) {
        let (index, [name_exact, name_loose, id, mobile]) = *inner.0;
        let verifier = |column, value| Verifier(wrapped(self.column(column), value));
        let verifiers = Verifiers {
            name_exact: verifier(Column::NameExact, name_exact),
            name_loose: verifier(Column::NameLoose, name_loose),
            id: verifier(Column::Id, id),
            mobile: verifier(Column::Mobile, mobile),
        };
        (BlindIndex(wrapped(&self.index, index)), verifiers)
    }

    /// A block of the element index without its wrapping. Never stored, never shown.
    pub(crate) fn person_unwrapped(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = Array::from(block);
        self.person.decrypt_block(&mut block);
        block.into()
    }

    /// A block of the element index, wrapped.
    pub(crate) fn person_wrapped(&self, inner: [u8; 16]) -> [u8; 16] {
        wrapped(&self.person, inner)
    }

    fn column(&self, column: Column) -> &Aes256 {
        &self.columns[column as usize - 1]
    }
}

/// Index and verifiers as the inner key made them, in the order of [`Column`].
pub(crate) struct Unwrapped(Zeroizing<([u8; 16], [[u8; 16]; 4])>);

impl Unwrapped {
    /// Where no mobile is on file, there is nothing to unwrap.
    pub(crate) fn without_mobile(mut self) -> Unwrapped {
        self.0.1[Column::Mobile as usize - 1] = [0; 16];
        self
    }

    /// A number that two equal accounts share, whatever wraps them. Such numbers are summed to see
    /// that a re-wrapping changed none.
    pub(crate) fn fingerprint(&self, rest: &[u8]) -> u128 {
        let (index, columns) = &*self.0;
        let hash = Sha256::new().chain_update(index).chain_update(columns.as_flattened()).chain_update(rest);
        u128::from_be_bytes(*hash.finalize().first_chunk().unwrap_or(&[0; 16]))
    }
}

fn columns(of: &Verifiers) -> [(Column, Verifier); 4] {
    [
        (Column::NameExact, of.name_exact),
        (Column::NameLoose, of.name_loose),
        (Column::Id, of.id),
        (Column::Mobile, of.mobile),
    ]
}

impl Keys {
    /// Puts every key of the ring to work that is not destroyed.
    pub(crate) fn new(ring: &KeyRing) -> Keys {
        let cmacs = |usage| ring.secrets(usage).map(|(_, key)| Cmac::new(key)).collect();
        let ciphers =
            |usage| ring.secrets(usage).map(|(v, key)| (v, Aes256Gcm::new(&Array::from(*key)))).collect();
        let (signing_version, signing) = ring.newest(KeyUse::Audit);
        let accounts = ring.secrets(KeyUse::WrapIndex);
        Keys {
            inner: Cmac::new(ring.newest(KeyUse::Inner).1),
            accounts: accounts.filter_map(|(version, _)| AccountKeys::new(ring, version)).collect(),
            subject: cmacs(KeyUse::Subject),
            token: ring.secrets(KeyUse::Token).map(|(v, key)| (v as u8, Cmac::new(key))).collect(),
            idempotency: cmacs(KeyUse::Idempotency),
            job: Cmac::new(ring.newest(KeyUse::Job).1),
            side: ciphers(KeyUse::Side),
            credential: ciphers(KeyUse::Credential),
            signing: (signing_version, SigningKey::from_bytes(signing)),
            audit_public: ring.public_keys(KeyUse::Audit),
            receipts: SigningKey::from_bytes(ring.newest(KeyUse::Receipt).1),
            receipts_public: ring
                .public_keys(KeyUse::Receipt)
                .into_iter()
                .rev()
                .map(|(_, key)| key)
                .collect(),
            envelopes_rsa: ring.private_keys(KeyUse::EnvelopeRsa),
            envelopes_sm2: ring.private_keys(KeyUse::EnvelopeSm2),
        }
    }

    /// The private keys that open envelopes, in PKCS#8, the newest first: RSA, then SM2. Empty when the
    /// ring has none.
    pub fn envelope_keys(&self) -> [Vec<&[u8]>; 2] {
        [&self.envelopes_rsa, &self.envelopes_sm2].map(|keys| keys.iter().map(|(_, der)| &der[..]).collect())
    }

    /// Changes whenever [`Keys::envelope_keys`] does: versions of the newest, and how many there are.
    pub fn envelope_version(&self) -> (u32, usize) {
        (self.envelopes_rsa.first().map_or(0, |(version, _)| *version), self.envelopes_rsa.len())
    }

    /// Keeps them out of swap space; whether the system let us.
    pub(super) fn keep_out_of_swap(&self) -> bool {
        let vectors = [
            keep_out_of_swap(&self.accounts),
            keep_out_of_swap(&self.subject),
            keep_out_of_swap(&self.token),
            keep_out_of_swap(&self.idempotency),
            keep_out_of_swap(&self.side),
            keep_out_of_swap(&self.credential),
        ];
        keep_out_of_swap(std::slice::from_ref(self)) && vectors.into_iter().all(|kept| kept)
    }

    /// The keys over accounts that new rows are written with.
    pub fn accounts(&self) -> &AccountKeys {
        // `KeyRing` has a newest key of every use, and those over accounts are only added together.
        &self.accounts[0]
    }

    /// The keys over accounts that rows may have: one version, or two while a rotation moves the rows.
    pub fn account_versions(&self) -> &[AccountKeys] {
        &self.accounts
    }

    /// The keys over accounts of one version.
    pub fn account_version(&self, version: u32) -> Option<&AccountKeys> {
        self.accounts.iter().find(|keys| keys.version == version)
    }

    /// Where the account of this card number is kept, under one version.
    pub fn index(&self, card: &str, under: &AccountKeys) -> BlindIndex {
        let [inner] = self.inner.macs([&[&[0], card.as_bytes()]]);
        BlindIndex(wrapped(&under.index, inner))
    }

    /// The verifiers of an account or of a claim; equal elements on one card give equal verifiers.
    pub fn verifiers(&self, of: &Elements<'_>, under: &AccountKeys) -> Verifiers {
        // The card's length goes first so that no card and value can be mistaken for another pair.
        let tags = COLUMNS.map(|column| [column as u8, of.card.len() as u8]);
        let message = |at: usize| [&tags[at][..], of.card, of.column(COLUMNS[at])];
        let [exact, loose, id, mobile] = [message(0), message(1), message(2), message(3)];
        let inner = self.inner.macs([&exact, &loose, &id, &mobile]);
        let verifier = |column: Column, inner| Verifier(wrapped(under.column(column), inner));
        Verifiers {
            name_exact: verifier(Column::NameExact, inner[0]),
            name_loose: verifier(Column::NameLoose, inner[1]),
            id: verifier(Column::Id, inner[2]),
            mobile: verifier(Column::Mobile, inner[3]),
        }
    }

    /// Where the accounts of many card numbers are kept, under one version.
    pub(crate) fn index_many<'a>(
        &self,
        cards: impl Iterator<Item = &'a [u8]>,
        under: &AccountKeys,
    ) -> Vec<BlindIndex> {
        let mut messages = Messages::with_room_for(cards.size_hint().0);
        cards.for_each(|card| messages.push(&self.inner, &[&[0], card]));
        let mut blocks = self.inner.tags(&messages);
        under.index.encrypt_blocks(&mut blocks);
        blocks.into_iter().map(|block| BlindIndex(block.into())).collect()
    }

    /// The verifiers of many accounts or claims: what [`Keys::verifiers`] gives for each.
    pub(crate) fn verify_many(&self, all: &[Elements<'_>], under: &AccountKeys) -> Vec<Verifiers> {
        let mut messages = COLUMNS.map(|column| (column, Messages::with_room_for(all.len())));
        for of in all {
            // A card number has 19 digits at most.
            let Some(head) = Head::new([0, of.card.len() as u8], of.card) else {
                return all.iter().map(|of| self.verifiers(of, under)).collect();
            };
            for (column, messages) in &mut messages {
                messages.push_behind(&self.inner, &head, *column as u8, of.column(*column));
            }
        }
        let [name_exact, name_loose, id, mobile] = messages.map(|(column, messages)| {
            let mut blocks = self.inner.tags(&messages);
            under.column(column).encrypt_blocks(&mut blocks);
            blocks
        });
        let verifier = |blocks: &[Array<u8, _>], at: usize| Verifier(blocks[at].into());
        let verifiers = |at| Verifiers {
            name_exact: verifier(&name_exact, at),
            name_loose: verifier(&name_loose, at),
            id: verifier(&id, at),
            mobile: verifier(&mobile, at),
        };
        (0..all.len()).map(verifiers).collect()
    }

    /// What an account is found and compared by with this identity number.
    pub fn by_id(&self, id: &str, name: &[u8], validity: Option<&str>, under: &AccountKeys) -> ById {
        ById {
            index: BlindIndex(self.person(5, id, b"", under)),
            name: Verifier(self.person(6, id, name, under)),
            validity: validity.map(|validity| Verifier(self.person(7, id, validity.as_bytes(), under))),
        }
    }

    /// What an account is found and compared by with this mobile number.
    pub fn by_mobile(&self, mobile: &str, name: &[u8], id: &str, under: &AccountKeys) -> ByMobile {
        ByMobile {
            index: BlindIndex(self.person(8, mobile, b"", under)),
            name: Verifier(self.person(9, mobile, name, under)),
            id: Verifier(self.person(10, mobile, id.as_bytes(), under)),
        }
    }

    /// `field` is one of its own for each use, beyond those of [`Column`].
    fn person(&self, field: u8, found_by: &str, value: &[u8], under: &AccountKeys) -> [u8; 16] {
        let tag = [field, found_by.len() as u8];
        under.person_wrapped(self.inner.mac(&[&tag, found_by.as_bytes(), value]))
    }

    /// The reference to a card in new audit records; lives in the erasable side row.
    pub fn subject(&self, card: &str) -> KeyedRef {
        self.subject[0].mac(&[card.as_bytes()])
    }

    /// The references to a card in all audit records, whichever key was the newest then.
    pub fn subjects(&self, card: &str) -> Vec<KeyedRef> {
        self.subject.iter().map(|key| key.mac(&[card.as_bytes()])).collect()
    }

    /// Keyed hash of a new bearer or platform token.
    pub fn token(&self, token: &str) -> KeyedRef {
        hashed(&self.token[0], token)
    }

    /// The hashes a token may be known by: a hash cannot be made anew without its token, so older keys
    /// stay as long as a credential has a hash of theirs.
    pub fn tokens(&self, token: &str) -> impl Iterator<Item = KeyedRef> {
        self.token.iter().map(move |key| hashed(key, token))
    }

    /// Keyed hash of parts that must not run into one another.
    pub fn idempotency(&self, parts: &[&[u8]]) -> KeyedRef {
        self.idempotencies(parts)[0]
    }

    /// The hashes that a question asked before may be known by, the newest first.
    pub fn idempotencies(&self, parts: &[&[u8]]) -> Vec<KeyedRef> {
        let framed = framed(parts);
        self.idempotency.iter().map(|key| key.mac(&[&framed])).collect()
    }

    /// The number of the job that is called so; under every ring of this installation the same.
    pub(crate) fn job(&self, parts: &[&[u8]]) -> KeyedRef {
        self.job.mac(&[&framed(parts)])
    }

    /// Encrypts with the newest key and binds to `place`; the key's version goes in front.
    pub fn seal(&self, with: Seal, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; 12] = nonce();
        let (version, cipher) = &self.sealing(with)[0];
        let sealed = cipher.encrypt(&Array::from(nonce), Payload { msg: plain, aad: place });
        // AES-GCM refuses only plaintexts of 64 GiB and more.
        [&version.to_be_bytes()[..], &nonce, &sealed.unwrap_or_default()].concat()
    }

    /// Opens what [`Keys::seal`] sealed for the same place, also with an older key.
    pub fn open(&self, with: Seal, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealed> {
        let (version, rest) = sealed.split_first_chunk::<4>().ok_or(Unsealed)?;
        let (nonce, body) = rest.split_first_chunk::<12>().ok_or(Unsealed)?;
        let version = u32::from_be_bytes(*version);
        let (_, cipher) = self.sealing(with).iter().find(|(known, _)| *known == version).ok_or(Unsealed)?;
        let plain = cipher.decrypt(&Array::from(*nonce), Payload { msg: body, aad: place });
        plain.map(Zeroizing::new).map_err(|_| Unsealed)
    }

    fn sealing(&self, with: Seal) -> &[(u32, Aes256Gcm)] {
        match with {
            Seal::Side => &self.side,
            Seal::Credential => &self.credential,
        }
    }

    /// Signs an audit checkpoint (Ed25519); gives the version of the key with it.
    pub fn sign(&self, message: &[u8]) -> (u32, [u8; 64]) {
        let (version, key) = &self.signing;
        (*version, key.sign(message).to_bytes())
    }

    /// Version of the key that signs checkpoints now.
    pub fn audit_version(&self) -> u32 {
        self.signing.0
    }

    /// Signs a receipt (Ed25519).
    pub fn sign_receipt(&self, message: &[u8]) -> [u8; 64] {
        self.receipts.sign(message).to_bytes()
    }

    /// The public halves of all keys that ever signed receipts, the newest first.
    pub fn receipt_public_keys(&self) -> &[[u8; 32]] {
        &self.receipts_public
    }

    /// What a receipt's commitment to the elements is opened with: of one answer always the same until
    /// the key is replaced, so that it need not be kept.
    pub fn opening(&self, request: &[u8; 16]) -> [u8; 16] {
        self.idempotency(&[b"opening", request])
    }

    /// The public halves of all keys that ever signed checkpoints, the oldest first.
    pub fn audit_public_keys(&self) -> Vec<[u8; 32]> {
        self.audit_public.iter().map(|(_, key)| *key).collect()
    }

    /// The public half of an audit key. Those of replaced keys are kept, to check what they signed.
    pub fn audit_public_key(&self, version: u32) -> Option<[u8; 32]> {
        self.audit_public.iter().find(|(known, _)| *known == version).map(|(_, key)| *key)
    }
}

fn wrapped(key: &Aes256, inner: [u8; 16]) -> [u8; 16] {
    let mut block = Array::from(inner);
    key.encrypt_block(&mut block);
    block.into()
}

/// Parts one behind the other, none of which runs into the next.
fn framed(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut framed = Zeroizing::new(Vec::with_capacity(256));
    for part in parts {
        framed.extend_from_slice(&(part.len() as u32).to_be_bytes());
        framed.extend_from_slice(part);
    }
    framed
}

/// The first byte names the key, so that it can be told which keys are still needed.
fn hashed((version, key): &(u8, Cmac), token: &str) -> KeyedRef {
    let mut hash = key.mac(&[token.as_bytes()]);
    hash[0] = *version;
    hash
}

#[cfg(test)]
mod tests {
    use super::super::Vault;
    use super::*;
    use crate::vault::KeyGroup;

    fn elements<'a>(card: &'a str, id: &'a str) -> Elements<'a> {
        Elements {
            card: card.as_bytes(),
            name_exact: "韦小宝".as_bytes(),
            name_loose: "韦小宝".as_bytes(),
            id: id.as_bytes(),
            mobile: b"16137688175",
        }
    }

    #[test]
    fn what_is_found_by_a_person_is_bound_to_the_number_and_the_field() {
        let vault = Vault::new(&KeyRing::generate());
        let keys = vault.keys();
        let under = keys.accounts();
        let (name, validity) = ("韦小宝".as_bytes(), Some("20200101-00000000"));
        let by_id = keys.by_id("340103202308176095", name, validity, under);
        let by_mobile = keys.by_mobile("16137688175", name, "340103202308176095", under);
        let other = keys.by_id("11010119900307888X", name, validity, under);
        assert!(!bool::from(by_id.name.matches(&by_mobile.name)), "same name, other field");
        assert!(!bool::from(by_id.name.matches(&other.name)), "same name, other number");
        assert_ne!(by_id.index, keys.by_mobile("340103202308176095", b"", "", under).index, "same digits");
        assert_ne!(by_id.index, vault.index("340103202308176095"), "a card of the same digits");
    }

    #[test]
    fn a_verifier_is_bound_to_its_card_and_its_field() {
        let keys = Keys::new(&KeyRing::generate());
        let one = keys.verifiers(&elements("6225768888888888", "16137688175"), keys.accounts());
        let other = keys.verifiers(&elements("6226090210146748", "16137688175"), keys.accounts());
        assert!(bool::from(one.id.matches(&one.id)));
        assert!(!bool::from(one.id.matches(&other.id)), "same value, other card");
        assert!(!bool::from(one.id.matches(&one.mobile)), "same value, other field");
    }

    #[test]
    fn wrapping_again_gives_what_the_new_keys_would_have_given() {
        let mut ring = KeyRing::generate();
        ring.add(KeyGroup::Accounts, 7);
        let keys = Keys::new(&ring);
        let [new, old] = keys.account_versions() else { panic!("two versions") };
        assert_eq!((new.version, old.version), (2, 1));
        let of = elements("6225768888888888", "16137688175");
        let inner = old.unwrapped(&keys.index("6225768888888888", old), &keys.verifiers(&of, old));
        let (index, verifiers) = new.wrapped(&inner);
        assert_eq!(index, keys.index("6225768888888888", new));
        assert_ne!(index, keys.index("6225768888888888", old));
        assert!(bool::from(verifiers.mobile.matches(&keys.verifiers(&of, new).mobile)));
        let again = new.unwrapped(&index, &verifiers);
        assert_eq!(inner.fingerprint(b"x"), again.fingerprint(b"x"));
        assert_ne!(inner.fingerprint(b"x"), again.fingerprint(b"y"));
    }

    #[test]
    fn old_keys_open_and_find_but_write_nothing() {
        let mut ring = KeyRing::generate();
        let before = Keys::new(&ring);
        for group in [KeyGroup::Side, KeyGroup::Tokens, KeyGroup::Subjects, KeyGroup::Audit] {
            ring.add(group, 7);
        }
        let after = Keys::new(&ring);
        let sealed = before.seal(Seal::Side, b"here", b"plain");
        assert_eq!(&after.open(Seal::Side, b"here", &sealed).unwrap()[..], b"plain");
        assert!(before.open(Seal::Side, b"here", &after.seal(Seal::Side, b"here", b"plain")).is_err());
        assert!(after.tokens("token").any(|hash| hash == before.token("token")));
        assert_ne!(after.token("token"), before.token("token"));
        assert!(after.subjects("6225768888888888").contains(&before.subject("6225768888888888")));
        assert_eq!(before.audit_public_key(1), after.audit_public_key(1));
        assert_eq!(after.sign(b"x").0, 2);
    }
}
