//! The catalogue: one service, a page for each action, search. Made from the tables the wires work with.

use engine::Engine;
use engine::action::Action;
use engine::caller::{ApplicationId, CallerId};
use engine::ledger::Credits;
use engine::projection::{self, AceDataNumbering, endpoint_of, name_of};
use serde_json::{Value, json};
use wire::acedata;
use wire::tencent::error::ErrorCode as TencentError;
use wire::{Element, Language};

use super::shapes::{self, Kind, amount};
use super::{Answer, Ask, Refused, list, ok, openapi};

/// Name of the service in addresses.
pub const SERVICE_ALIAS: &str = "identity";
/// Name of the service for people.
pub const SERVICE_TITLE: &str = "Identity Authentication";

/// What there is to say about an action.
pub struct Page {
    /// The action.
    pub action: Action,
    /// Its name in addresses.
    pub alias: &'static str,
    /// Where it is asked on the AceData wire.
    pub path: &'static str,
    /// What it is called on the Tencent wire.
    pub tencent: &'static str,
    /// Title.
    pub title_en: &'static str,
    /// Title.
    pub title_zh: &'static str,
    /// What it answers, in a sentence.
    pub about_en: &'static str,
    /// What it answers, in a sentence.
    pub about_zh: &'static str,
}

impl Page {
    /// Its title.
    pub fn title(&self, language: Language) -> &'static str {
        if language == Language::Chinese { self.title_zh } else { self.title_en }
    }

    /// What it answers.
    pub fn about(&self, language: Language) -> &'static str {
        if language == Language::Chinese { self.about_zh } else { self.about_en }
    }
}

/// The page of an action.
pub fn page(action: Action) -> &'static Page {
    match action {
        Action::FourElements => {
            const PAGE: Page = Page {
                action: Action::FourElements,
                alias: "identity-bankcard-check-4e",
                path: endpoint_of(Action::FourElements).path(),
                tencent: name_of(Action::FourElements).name(),
                title_en: "Bank card four-element verification",
                title_zh: "银行卡四要素核验",
                about_en: "Do this card number, holder name, identity number and reserved mobile number belong to one person?",
                about_zh: "核验银行卡号、姓名、身份证号、银行预留手机号是否属于同一人。",
            };
            &PAGE
        }
        Action::ThreeElements => {
            const PAGE: Page = Page {
                action: Action::ThreeElements,
                alias: "identity-bankcard-check-3e",
                path: endpoint_of(Action::ThreeElements).path(),
                tencent: name_of(Action::ThreeElements).name(),
                title_en: "Bank card three-element verification",
                title_zh: "银行卡三要素核验",
                about_en: "Do this card number, holder name and identity number belong to one person?",
                about_zh: "核验银行卡号、姓名、身份证号是否属于同一人。",
            };
            &PAGE
        }
        Action::TwoElements => {
            const PAGE: Page = Page {
                action: Action::TwoElements,
                alias: "identity-bankcard-check-2e",
                path: endpoint_of(Action::TwoElements).path(),
                tencent: name_of(Action::TwoElements).name(),
                title_en: "Bank card two-element verification",
                title_zh: "银行卡二要素核验",
                about_en: "Do this card number and holder name belong together?",
                about_zh: "核验银行卡号与姓名是否一致。",
            };
            &PAGE
        }
        Action::CardInformation => {
            const PAGE: Page = Page {
                action: Action::CardInformation,
                alias: "identity-bankcard-check-1e",
                path: endpoint_of(Action::CardInformation).path(),
                tencent: name_of(Action::CardInformation).name(),
                title_en: "Bank card information",
                title_zh: "银行卡基础信息查询",
                about_en: "Which bank issued this card, and of which kind is it?",
                about_zh: "查询银行卡的发卡行与卡类型。",
            };
            &PAGE
        }
        Action::NameAndId => {
            const PAGE: Page = Page {
                action: Action::NameAndId,
                alias: "identity-idcard-check-2e",
                path: endpoint_of(Action::NameAndId).path(),
                tencent: name_of(Action::NameAndId).name(),
                title_en: "Identity card two-element verification",
                title_zh: "身份证二要素核验",
                about_en: "Do this name and identity number belong together?",
                about_zh: "核验姓名与身份证号是否一致。",
            };
            &PAGE
        }
        Action::MobileNameAndId => {
            const PAGE: Page = Page {
                action: Action::MobileNameAndId,
                alias: "identity-phone-check-3e",
                path: endpoint_of(Action::MobileNameAndId).path(),
                tencent: name_of(Action::MobileNameAndId).name(),
                title_en: "Mobile three-element verification",
                title_zh: "手机号三要素核验",
                about_en: "Do this mobile number, name and identity number belong to one person?",
                about_zh: "核验手机号、姓名、身份证号是否属于同一人。",
            };
            &PAGE
        }
        Action::MobileAndName => {
            const PAGE: Page = Page {
                action: Action::MobileAndName,
                alias: "identity-phone-check-2e",
                path: endpoint_of(Action::MobileAndName).path(),
                tencent: name_of(Action::MobileAndName).name(),
                title_en: "Mobile two-element verification",
                title_zh: "手机号二要素核验",
                about_en: "Do this mobile number and name belong together?",
                about_zh: "核验手机号与姓名是否一致。",
            };
            &PAGE
        }
    }
}

/// A member of a question.
pub struct Member {
    /// On the AceData wire.
    pub name: &'static str,
    /// On the Tencent wire.
    pub tencent: &'static str,
    /// What it is.
    pub en: &'static str,
    /// What it is.
    pub zh: &'static str,
    /// From the public documentation: a person who does not exist.
    pub example: &'static str,
    /// What stands in the form instead of it.
    pub typed: Option<String>,
}

/// The required members of an action, in the order of the form.
pub fn members(action: Action) -> Vec<Member> {
    let takes = endpoint_of(action).takes();
    let tencent = name_of(action).members().elements;
    let named =
        |element: Element| tencent.iter().find(|(known, _)| *known == element).map_or("", |(_, name)| name);
    let mut members: Vec<Member> =
        takes.elements.iter().map(|(element, name)| member(*element, name, named(*element))).collect();
    if takes.validity {
        let day = |name, en, zh, example| Member { name, tencent: "", en, zh, example, typed: None };
        members.push(day(
            "validity_begin",
            "First day of the card's validity",
            "证件有效期起始日",
            "20200101",
        ));
        members.push(day(
            "validity_end",
            "Last day, 00000000: for life",
            "证件有效期截止日，00000000 为长期",
            "20400101",
        ));
    }
    members
}

/// An element as it is called on both wires.
pub fn member(element: Element, name: &'static str, tencent: &'static str) -> Member {
    let (en, zh, example) = match element {
        Element::Name => ("Name of the card's holder", "姓名", "韦小宝"),
        Element::BankCard => {
            ("Number of the bank card, 13 to 19 digits", "银行卡号，13 至 19 位数字", "6225768888888888")
        }
        Element::Phone => ("Mobile number, reserved with the bank", "银行预留手机号码", "16137688175"),
        Element::IdCard => ("Number of the resident identity card", "身份证号码", "11204416541220243X"),
    };
    Member { name, tencent, en, zh, example, typed: None }
}

/// What an action can answer.
pub struct Code {
    /// The number on the AceData wire.
    pub acedata: i8,
    /// The number on the Tencent wire.
    pub tencent: i8,
    /// Whether it is charged.
    pub charged: bool,
    /// What it is called in records.
    pub outcome: &'static str,
    /// Its text.
    pub en: &'static str,
    /// Its text.
    pub zh: &'static str,
    /// Where a sandbox answers it.
    pub try_it: Option<String>,
}

/// Everything an action can answer.
pub fn codes(action: Action) -> Vec<Code> {
    let code = |outcome: &engine::outcome::Outcome| {
        let acedata = projection::acedata(AceDataNumbering::Documented, endpoint_of(action), *outcome)?;
        let tencent = projection::tencent(name_of(action), *outcome)?;
        Some(Code {
            acedata: acedata.number,
            tencent: tencent.number,
            charged: action.charges(*outcome),
            outcome: outcome.name(),
            en: tencent.text(Language::English),
            zh: tencent.text(Language::Chinese),
            try_it: None,
        })
    };
    let mut codes: Vec<_> = action.outcomes().iter().filter_map(code).collect();
    codes.sort_by_key(|code| -i16::from(code.tencent));
    codes
}

/// The service's UUID.
pub fn service_id() -> String {
    Kind::Service.id(1)
}

/// An API's UUID.
pub fn api_id(action: Action) -> String {
    Kind::Api.id(number(action))
}

fn document_id(action: Action) -> String {
    Kind::Document.id(number(action))
}

fn number(action: Action) -> u32 {
    Action::ALL.iter().position(|known| *known == action).map_or(0, |at| at as u32 + 1)
}

/// The action of an API's UUID.
pub fn action_of_id(id: &str) -> Option<Action> {
    let number = Kind::Api.number(id).ok()?;
    Action::ALL.get(number.checked_sub(1)? as usize).copied()
}

/// The action whose page this is, by alias, page UUID or API UUID.
pub fn action_of_document(id: &str) -> Option<Action> {
    let is_it = |action: &Action| {
        [page(*action).alias.to_owned(), document_id(*action), api_id(*action)]
            .contains(&id.to_ascii_lowercase())
    };
    Action::ALL.into_iter().find(is_it)
}

/// Refuses what is not the one service.
pub fn check_service(id: &str) -> Result<(), Refused> {
    if id == SERVICE_ALIAS {
        return Ok(());
    }
    if Kind::Service.number(id)? == 1 { Ok(()) } else { Err(Refused::not_found("service")) }
}

/// The service as it stands in other objects.
pub fn service_summary() -> Value {
    json!({
        "id": service_id(),
        "alias": SERVICE_ALIAS,
        "title": SERVICE_TITLE,
        "type": "Api",
        "unit": "Credit",
        "icon_url": null,
    })
}

fn service_item(ask: &Ask) -> Result<Value, Refused> {
    let engine = ask.engine();
    let directory = engine.directory();
    let applied = directory.applications().filter(|application| !application.actions.is_empty()).count();
    let own = ask.actor.as_ref().and_then(|actor| directory.application(ApplicationId(actor.caller.id.0)));
    let mut item = service_summary();
    let packages = engine.platform().packages()?;
    let more = json!({
        "description": "Bank card verification: do these elements belong to one person?",
        "introduction": "Bank card verification: do these elements belong to one person?",
        "applied_count": applied,
        "free_amount": amount(ask.server.settings().free_quota().unwrap_or_default()),
        "private": false,
        "need_verify": false,
        "rank": 1,
        "tags": ["identity"],
        "thumbnail": null,
        "doc_url": format!("{}/service/{SERVICE_ALIAS}", ask.public_url),
        "demo_url": null,
        "api_ids": offered(ask).into_iter().map(api_id).collect::<Vec<_>>(),
        "proxy_ids": [],
        "cost": cost(ask, Action::FourElements),
        "packages": packages.iter().map(shapes::package).collect::<Vec<_>>(),
        "applied": own.is_some_and(|(application, _)| !application.actions.is_empty()),
    });
    if let (Value::Object(item), Value::Object(more)) = (&mut item, more) {
        item.extend(more);
    }
    Ok(item)
}

/// What a charged answer of an action costs a caller, or anybody.
pub fn price(engine: &Engine, caller: Option<CallerId>, action: Action) -> Credits {
    let policy = engine.policy();
    let directory = engine.directory();
    let own = caller.and_then(|caller| directory.application(ApplicationId(caller.0)));
    let own = own.and_then(|(application, _)| application.price);
    own.or(policy.prices[action as usize]).unwrap_or(policy.price)
}

/// Every action this installation answers, with its price.
pub fn priced(engine: &Engine, caller: Option<CallerId>) -> Vec<(&'static Page, String)> {
    let actions = engine.policy().actions().into_iter();
    actions.map(|action| (page(action), price(engine, caller, action).to_string())).collect()
}

/// The price in the form the original has it: the first rule whose condition holds.
fn cost(ask: &Ask, action: Action) -> Value {
    let price = price(ask.engine(), ask.actor.as_ref().map(|actor| actor.caller.id), action);
    json!([{
        "conditions": { "==": [1, 1] },
        "consumption": amount(price),
        "unit": "Credit",
        "remark": "Only answers that the code table marks as charged.",
    }])
}

/// What this installation answers.
fn offered(ask: &Ask) -> Vec<Action> {
    ask.engine().policy().actions()
}

/// `GET /services/`
pub fn services(ask: &Ask) -> Answer {
    let is_wanted = ask.first("id").is_none_or(|id| check_service(id).is_ok())
        && ask.first("type").is_none_or(|kind| kind == "Api")
        && ask.first("private") != Some("true");
    let items = if is_wanted { vec![service_item(ask)?] } else { Vec::new() };
    Ok(ask.paged(items))
}

/// `GET /services/{uuid or alias}`
pub fn service(ask: &Ask, id: &str) -> Answer {
    check_service(id)?;
    let mut item = service_item(ask)?;
    item["apis"] = offered(ask).into_iter().map(|action| api_item(ask, action)).collect();
    item["proxies"] = json!([]);
    item["datasets"] = json!([]);
    ok(item)
}

/// `GET /services/{uuid}/apis/`
pub fn apis_of(ask: &Ask, id: &str) -> Answer {
    check_service(id)?;
    Ok(ask.paged(offered(ask).into_iter().map(|action| api_item(ask, action)).collect()))
}

fn api_item(ask: &Ask, action: Action) -> Value {
    let page = page(action);
    json!({
        "id": api_id(action),
        "document_id": document_id(action),
        "service_id": service_id(),
        "name": page.alias,
        "title": page.title_en,
        "path": page.path,
        "path2": null,
        "method": "POST",
        "introduction": page.about_en,
        "cost": cost(ask, action),
        "stage": "Production",
        "rank": number(action),
        "tags": ["identity"],
        "metadata": { "tencent_action": page.tencent },
    })
}

/// `GET /apis/`
pub fn apis(ask: &Ask) -> Answer {
    let wanted = |action: &Action| {
        ask.first("path").is_none_or(|path| path == page(*action).path)
            && ask.first("service").is_none_or(|id| check_service(id).is_ok())
            && ask.first("stage").is_none_or(|stage| stage == "Production")
    };
    let item = |action| {
        let mut item = api_item(ask, action);
        // Who asks for one path wants its definition: the MCP server looks for it here.
        if ask.first("path").is_some() {
            item["definition"] = openapi::document(action, &ask.public_url, &ask.server);
        }
        item
    };
    Ok(ask.paged(offered(ask).into_iter().filter(wanted).map(item).collect()))
}

/// `GET /apis/{uuid}`
pub fn api(ask: &Ask, id: &str) -> Answer {
    let action = match action_of_document(id) {
        Some(action) => action,
        None => action_of_id(id)
            .ok_or(Kind::Api.number(id).err())
            .map_err(|error| error.unwrap_or_else(|| Refused::not_found("API")))?,
    };
    let mut item = api_item(ask, action);
    item["definition"] = openapi::document(action, &ask.public_url, &ask.server);
    item["service"] = service_summary();
    item["products"] = json!([]);
    ok(item)
}

fn document_item(action: Action) -> Value {
    let page = page(action);
    json!({
        "id": document_id(action),
        "alias": page.alias,
        "title": page.title_en,
        "locale": "en",
        "content_mode": "Api",
        "parent": null,
        "children": [],
        "api": { "id": api_id(action), "path": page.path, "method": "POST" },
    })
}

/// `GET /documents/`
pub fn documents(ask: &Ask) -> Answer {
    Ok(ask.paged(offered(ask).into_iter().map(document_item).collect()))
}

/// `GET /documents/{alias or id}`
pub fn document(ask: &Ask, id: &str) -> Answer {
    let action = action_of_document(id).ok_or_else(|| Refused::not_found("document"))?;
    let mut item = document_item(action);
    item["content"] = content(action).into();
    item["definition"] = openapi::document(action, &ask.public_url, &ask.server);
    ok(item)
}

/// `GET /documents/{alias}/openapi.json`
pub fn openapi(ask: &Ask, id: &str) -> Answer {
    let action = action_of_document(id).ok_or_else(|| Refused::not_found("document"))?;
    ok(openapi::document(action, &ask.public_url, &ask.server))
}

fn content(action: Action) -> String {
    let page = page(action);
    let mut text = format!("# {}\n\n{}\n\n`POST {}`\n\n", page.title_en, page.about_en, page.path);
    text += "| Member | What |\n|---|---|\n";
    for member in members(action) {
        text += &format!("| `{}` | {} |\n", member.name, member.en);
    }
    text += "\n| `result` | Charged | What |\n|---|---|---|\n";
    for code in codes(action) {
        text +=
            &format!("| `{}` | {} | {} |\n", code.acedata, if code.charged { "yes" } else { "no" }, code.en);
    }
    text
}

/// `GET /config/`
pub fn config(ask: &Ask) -> Answer {
    ok(json!({
        "name": "card4e",
        "country": null,
        "features": { "registration": ask.server.registration().name(), "webhooks": false, "x402": false },
        "support": ask.server.settings().platform.support_contact,
        "currency": ask.server.settings().platform.currency,
        "api_base_url": ask.public_url,
    }))
}

/// Something that was found.
pub struct Hit {
    /// `action`, `member`, `code` or `error`.
    pub kind: &'static str,
    /// What it is called.
    pub title: String,
    /// A sentence about it.
    pub about: String,
    /// Where it is explained.
    pub href: String,
}

/// Actions, members, codes and errors whose name or text has all words of the query, letters of any case.
pub fn find(query: &str, language: Language) -> Vec<Hit> {
    let chinese = language == Language::Chinese;
    let mut all = Vec::new();
    for action in Action::ALL {
        let page = page(action);
        let href = |anchor: &str| format!("/documents/{}{anchor}", page.alias);
        let names = format!("{} {} {}", page.tencent, page.path, page.title_zh);
        all.push((
            Hit {
                kind: "action",
                title: page.title(language).into(),
                about: page.about(language).into(),
                href: href(""),
            },
            names,
        ));
        for member in members(action) {
            let title = format!("{} / {}", member.name, member.tencent);
            let about = if chinese { member.zh } else { member.en };
            all.push((
                Hit { kind: "member", title, about: about.into(), href: href("#members") },
                format!("{} {}", member.en, member.zh),
            ));
        }
        for code in codes(action) {
            let title = format!("{} ({} / {})", code.outcome, code.acedata, code.tencent);
            let about = if chinese { code.zh } else { code.en };
            all.push((
                Hit { kind: "code", title, about: about.into(), href: href("#codes") },
                format!("{} {}", code.en, code.zh),
            ));
        }
        for error in acedata::ErrorCode::ALL {
            let title = format!("{} {}", error.status().as_u16(), error.as_str());
            all.push((
                Hit { kind: "error", title, about: error.message().into(), href: href("#errors") },
                String::new(),
            ));
        }
    }
    for error in TencentError::ALL {
        let about = error.about().to_owned();
        all.push((
            Hit {
                kind: "error",
                title: error.as_str().into(),
                about,
                href: "/documents/explorer#errors".into(),
            },
            String::new(),
        ));
    }
    let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    let fits = |(hit, names): &(Hit, String)| {
        let text = format!("{} {} {names}", hit.title, hit.about).to_lowercase();
        words.iter().all(|word| text.contains(word.as_str()))
    };
    if words.is_empty() {
        return Vec::new();
    }
    all.into_iter().filter(fits).map(|(hit, _)| hit).collect()
}

/// `GET /search/`
pub fn search(ask: &Ask) -> Answer {
    let language = if ask.first("lang").is_some_and(|lang| lang.starts_with("zh")) {
        Language::Chinese
    } else {
        Language::English
    };
    let hits = find(ask.first("query").unwrap_or_default(), language);
    let (limit, _) = ask.page();
    let shape = |hit: &Hit| {
        let url = format!("{}{}", ask.public_url, hit.href);
        json!({ "type": hit.kind, "title": hit.title, "description": hit.about, "url": url })
    };
    Ok(list(hits.len(), hits.iter().take(limit as usize).map(shape).collect()))
}
