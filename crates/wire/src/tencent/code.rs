//! The tables of result codes, one for each action, from its documentation page.
//!
//! Chinese is the domestic page's text, English the international page's, with all their unevenness;
//! where there is no international page, the English is ours. For the checks of phone numbers the page
//! lists one wording and its samples show another: the samples' is sent.

use crate::code::result_codes;

result_codes! {
    /// A result code of `BankCard4EVerification`.
    BankCard4ECode {
        /// All four elements belong together.
        Passed = 0, charged, "认证通过", "Authentication passed";
        /// Not passed, without a reason.
        NotPassed = -1, charged, "认证未通过", "Authentication failed";
        /// The name is not a name.
        NameInvalid = -2, free, "姓名校验不通过", "Name verification failed";
        /// The identity number is not one.
        IdInvalid = -3, free, "身份证号码有误", "Identity number error";
        /// The card number is malformed.
        CardMalformed = -4, free, "银行卡号格式有误", "Incorrect bank card number format";
        /// The phone number is not one.
        PhoneInvalid = -5, free, "手机号码不合法", "Invalid phone number";
        /// Name, identity number or phone differs from the bank's record.
        HolderMismatch = -6, charged, "持卡人信息有误", "Cardholder information is incorrect";
        /// Card-not-present payment is switched off.
        CardlessNotEnabled = -7, charged, "未开通无卡支付", "Cardless payment not enabled";
        /// The card has been confiscated.
        CardConfiscated = -8, charged, "此卡被没收", "Card confiscated";
        /// There is no such card.
        CardInvalid = -9, charged, "无效卡号", "Invalid card number";
        /// No issuer is known for the card.
        NoIssuer = -10, charged, "此卡无对应发卡行", "No corresponding issuing bank for this card";
        /// The card was never activated, or is dormant.
        CardInactive = -11, charged, "该卡未初始化或睡眠卡", "The card is uninitialized or a Sleep Card";
        /// The card is marked as fraudulent.
        CardFraud = -12, charged, "作弊卡、吞卡", "Cheat card, card confiscation";
        /// The card has been reported lost.
        CardLost = -13, charged, "此卡已挂失", "Reported lost";
        /// The card is past its expiry.
        CardExpired = -14, charged, "该卡已过期", "The card has expired.";
        /// The card is restricted.
        CardRestricted = -15, charged, "受限制的卡", "Restricted card";
        /// Too many wrong PINs.
        PinLocked = -16, charged, "密码错误次数超限", "Exceeded the number of password errors";
        /// The issuer does not take part.
        IssuerUnsupported = -17, charged, "发卡行不支持此交易", "Issuer does not support this transaction";
        /// No source could answer now.
        Busy = -18, free, "验证中心服务繁忙", "Verification Center Service busy";
        /// Too many attempts today.
        AttemptsExceeded = -19, free, "验证次数超限，请次日重试",
            "Exceeded maximum verification attempts. Please retry the next day.";
        /// Only the second-generation resident identity card can be verified.
        DocumentUnsupported = -20, free, "该证件号暂不支持核验，当前仅支持二代身份证",
            "The ID number is not currently supported for verification. Currently only support second-generation resident identity card.";
        /// The card's state is abnormal.
        CardAbnormal = -21, charged, "卡状态异常或卡号错误", "Card status exception or card number error";
    }
}

result_codes! {
    /// A result code of `BankCardVerification`: three elements.
    BankCard3ECode {
        /// The three elements belong together.
        Passed = 0, charged, "认证通过", "Authentication passed";
        /// Not passed, without a reason.
        NotPassed = -1, charged, "认证未通过", "Authentication failed";
        /// The name is not a name.
        NameInvalid = -2, free, "姓名校验不通过", "Name verification failed";
        /// The identity number is not one.
        IdInvalid = -3, free, "身份证号码有误", "Identity number error";
        /// The card number is malformed.
        CardMalformed = -4, free, "银行卡号格式有误", "Incorrect bank card number format";
        /// Name or identity number differs from the bank's record.
        HolderMismatch = -5, charged, "持卡人信息有误", "Cardholder information is incorrect";
        /// Card-not-present payment is switched off.
        CardlessNotEnabled = -6, charged, "未开通无卡支付", "Cardless payment not enabled";
        /// The card has been confiscated.
        CardConfiscated = -7, charged, "此卡被没收", "Card confiscated";
        /// There is no such card.
        CardInvalid = -8, charged, "无效卡号", "Invalid card number";
        /// No issuer is known for the card.
        NoIssuer = -9, charged, "此卡无对应发卡行", "No corresponding issuing bank for this card";
        /// The card was never activated, or is dormant.
        CardInactive = -10, charged, "该卡未初始化或睡眠卡", "The card is uninitialized or a Sleep Card";
        /// The card is marked as fraudulent.
        CardFraud = -11, charged, "作弊卡、吞卡", "Cheat card, card retention";
        /// The card has been reported lost.
        CardLost = -12, charged, "此卡已挂失", "Reported lost";
        /// The card is past its expiry.
        CardExpired = -13, charged, "该卡已过期", "The card has expired.";
        /// The card is restricted.
        CardRestricted = -14, charged, "受限制的卡", "Restricted card";
        /// Too many wrong PINs.
        PinLocked = -15, charged, "密码错误次数超限", "Exceeded the number of password errors.";
        /// The issuer does not take part.
        IssuerUnsupported = -16, charged, "发卡行不支持此交易", "Issuer does not support this transaction";
        /// No source could answer now.
        Busy = -17, free, "验证中心服务繁忙", "Verification Center Service busy";
        /// Too many attempts today.
        AttemptsExceeded = -18, free, "验证次数超限，请次日重试",
            "Exceeded verification attempts. Please retry the next day.";
        /// Only the second-generation resident identity card can be verified.
        DocumentUnsupported = -19, free, "该证件号暂不支持核验，当前仅支持二代身份证",
            "The ID number is not currently supported for verification. Currently only support second-generation resident identity card.";
        /// The card's state is abnormal.
        CardAbnormal = -20, charged, "卡状态异常或卡号错误", "Card status exception or card number error";
    }
}

result_codes! {
    /// A result code of `BankCard2EVerification`: two elements.
    BankCard2ECode {
        /// Name and card belong together.
        Passed = 0, charged, "认证通过", "Authentication passed";
        /// Not passed, without a reason.
        NotPassed = -1, charged, "认证未通过", "Authentication failed";
        /// The name is not a name.
        NameInvalid = -2, free, "姓名校验不通过", "Name verification failed";
        /// The card number is malformed.
        CardMalformed = -3, free, "银行卡号格式有误", "Incorrect bank card number format";
        /// The name differs from the bank's record.
        HolderMismatch = -4, charged, "持卡人信息有误", "Cardholder information is incorrect";
        /// Card-not-present payment is switched off.
        CardlessNotEnabled = -5, charged, "未开通无卡支付", "Cardless payment not enabled";
        /// The card has been confiscated.
        CardConfiscated = -6, charged, "此卡被没收", "Card confiscated";
        /// There is no such card.
        CardInvalid = -7, charged, "无效卡号", "Invalid card number";
        /// No issuer is known for the card.
        NoIssuer = -8, charged, "此卡无对应发卡行", "No corresponding issuing bank for this card";
        /// The card was never activated, or is dormant.
        CardInactive = -9, charged, "该卡未初始化或睡眠卡", "The card is uninitialized or a Sleep Card";
        /// The card is marked as fraudulent.
        CardFraud = -10, charged, "作弊卡、吞卡", "Cheat card, card confiscation";
        /// The card has been reported lost.
        CardLost = -11, charged, "此卡已挂失", "Reported lost";
        /// The card is past its expiry.
        CardExpired = -12, charged, "该卡已过期", "The card has expired";
        /// The card is restricted.
        CardRestricted = -13, charged, "受限制的卡", "Restricted card";
        /// Too many wrong PINs.
        PinLocked = -14, charged, "密码错误次数超限", "Number of password errors exceeds the limit";
        /// The issuer does not take part.
        IssuerUnsupported = -15, charged, "发卡行不支持此交易", "Issuer does not support this transaction";
        /// No source could answer now.
        Busy = -16, free, "验证中心服务繁忙", "Verification Center Service busy";
        /// Too many attempts today.
        AttemptsExceeded = -17, free, "验证次数超限，请次日重试",
            "Verification attempts exceeded. Please retry the next day.";
        /// The card's state is abnormal.
        CardAbnormal = -18, charged, "卡状态异常或卡号错误", "Card status exception or card number error";
    }
}

result_codes! {
    /// A result code of `CheckBankCardInformation`. A malformed number is charged here, and a card that
    /// does not exist is not: the other way round from the checks of its holder.
    CardInformationCode {
        /// The issuer is known.
        Found = 0, charged, "查询成功", "Query succeeded";
        /// No issuer is known.
        NotFound = -1, charged, "未查到信息", "Not found";
        /// No source could answer now.
        Busy = -2, free, "验证中心服务繁忙", "Verification Center Service is busy.";
        /// There is no such card.
        CardAbsent = -3, free, "银行卡不存在", "Bank card not found.";
        /// Too many attempts today.
        AttemptsExceeded = -4, free, "认证次数超过当日限制，请次日重试",
            "Authentication attempts exceeded the daily limit. Retry the next day.";
        /// The card number is malformed.
        CardMalformed = -5, charged, "卡号无效", "Invalid card number";
        /// Cards of this kind are not served.
        KindUnsupported = -6, free, "暂不支持该银行卡种", "This bank card type is not currently supported";
    }
}

result_codes! {
    /// A result code of `IdCardVerification`.
    IdCardCode {
        /// Name and identity number belong together.
        Consistent = 0, charged, "姓名和身份证号一致", "Name and identity card number match";
        /// They do not.
        Inconsistent = -1, charged, "姓名和身份证号不一致", "Name and ID card number mismatch";
        /// The identity number is not one.
        IdInvalid = -2, free, "非法身份证号（长度、校验位等不正确）", "Invalid ID number (incorrect length or check digit).";
        /// The name is not a name.
        NameInvalid = -3, free, "非法姓名（长度、格式等不正确）", "Invalid name (incorrect length, format, etc.)";
        /// The source failed.
        SourceError = -4, free, "证件库服务异常", "Document library service exception";
        /// The source knows nobody with this number.
        NoRecord = -5, free, "证件库中无此身份证记录", "No ID card record found in the document library";
        /// The source is being upgraded.
        Upgrading = -6, free, "权威比对系统升级中，请稍后再试",
            "The authoritative comparison system is being upgraded. Try again later.";
        /// Too many attempts today.
        AttemptsExceeded = -7, free, "认证次数超过当日限制", "Authentication attempts exceeded the daily limit.";
    }
}

result_codes! {
    /// A result code of `PhoneVerification`.
    PhoneCode {
        /// Phone, name and identity number belong together.
        Passed = 0, charged, "认证通过", "Three-element information consistency.";
        /// They do not.
        Inconsistent = -4, charged, "信息不一致", "Three-element information inconsistency.";
        /// The phone number is not one.
        PhoneInvalid = -6, free, "手机号码不合法", "Invalid phone number.";
        /// The identity number is not one.
        IdInvalid = -7, free, "身份证号码有误", "Identity number error.";
        /// The name is not a name.
        NameInvalid = -8, free, "姓名校验不通过", "Name verification failed.";
        /// Nobody is known with this number.
        NoRecord = -9, free, "没有记录", "No records.";
        /// No source could answer now.
        Busy = -11, free, "验证中心服务繁忙", "The Verification Center Service is busy.";
        /// Too many attempts today.
        AttemptsExceeded = -12, free, "认证次数超过当日限制，请次日重试",
            "Authentication attempts exceeded the daily limit. Retry the next day.";
        /// Numbers of this range cannot be verified.
        NumberRange = -13, free, "该号段不支持验证", "The number range is unsupported for verification.";
    }
}

result_codes! {
    /// A result code of `PhoneVerificationCMCC`, `PhoneVerificationCUCC` and `PhoneVerificationCTCC`:
    /// as [`PhoneCode`], but without one for too many attempts.
    CarrierPhoneCode {
        /// Phone, name and identity number belong together.
        Passed = 0, charged, "认证通过", "Authentication passed.";
        /// They do not.
        Inconsistent = -4, charged, "信息不一致", "The information is inconsistent.";
        /// The phone number is not one.
        PhoneInvalid = -6, free, "手机号码不合法", "Invalid phone number.";
        /// The identity number is not one.
        IdInvalid = -7, free, "身份证号码有误", "Identity number error.";
        /// The name is not a name.
        NameInvalid = -8, free, "姓名校验不通过", "Name verification failed.";
        /// Nobody is known with this number.
        NoRecord = -9, free, "没有记录", "No records.";
        /// No source could answer now.
        Busy = -11, free, "验证中心服务繁忙", "The Verification Center Service is busy.";
        /// Numbers of this range cannot be verified.
        NumberRange = -13, free, "该号段不支持验证", "The number range is unsupported for verification.";
    }
}

result_codes! {
    /// A result code of `CheckPhoneAndName`. The one table with a positive number.
    PhoneAndNameCode {
        /// Phone and name belong together.
        Consistent = 0, charged, "验证结果一致", "The verification result is consistent.";
        /// They do not.
        Inconsistent = 1, charged, "验证结果不一致", "The verification result is inconsistent.";
        /// Nobody is known with this number.
        NoRecord = -1, free, "查无记录", "No records.";
        /// The source failed for a reason nobody knows.
        EngineUnknown = -2, free, "引擎未知错误", "Unknown engine error.";
        /// The source is not at work.
        EngineFailed = -3, free, "引擎服务异常", "Engine service exception.";
        /// The name is not a name.
        NameInvalid = -4, free, "姓名校验不通过", "Name verification failed.";
        /// The phone number is not one.
        PhoneInvalid = -5, free, "手机号码不合法", "Invalid phone number.";
        /// Too many attempts today.
        AttemptsExceeded = -6, free, "认证次数超过当日限制，请次日重试",
            "Authentication attempts exceeded the daily limit. Retry the next day.";
        /// Numbers of this range cannot be verified.
        NumberRange = -13, free, "该号段不支持验证", "The number range is unsupported for verification.";
    }
}
