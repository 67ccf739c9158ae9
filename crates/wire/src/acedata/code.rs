//! The tables of result codes as AceData's guides print them. English is the guides' own; Chinese is
//! theirs where there is a Chinese edition, else that of the service they descend from.

use crate::code::result_codes;

result_codes! {
    /// A result code of `bankcard/check-2e`, `-3e` and `-4e`.
    ///
    /// The three guides print one table, that of the two-element check, so there is no code for a
    /// malformed identity number or phone. Tencent numbers its own checks differently from -3 on: never
    /// let a number of one meet the other.
    CheckCode {
        /// The elements belong together.
        Passed = 0, charged, "认证通过", "Authentication passed";
        /// Refused without a cause that has a code.
        NotPassed = -1, charged, "认证未通过", "Authentication not passed";
        /// The name cannot be a name.
        NameInvalid = -2, free, "姓名校验不通过", "Name verification not passed";
        /// The card number cannot be a card number.
        CardMalformed = -3, free, "银行卡号码有误", "Bank card number is incorrect";
        /// Name, document or phone are not those of the card's holder.
        HolderMismatch = -4, charged, "持卡人信息有误", "Cardholder information is incorrect";
        /// Payment without the card at hand is off for this card.
        CardlessNotEnabled = -5, charged, "未开通无卡支付", "No card payment activated";
        /// Confiscated.
        CardConfiscated = -6, charged, "此卡被没收", "This card has been confiscated";
        /// The issuer knows no such card.
        CardInvalid = -7, charged, "无效卡号", "Invalid card number";
        /// No bank issues cards with this prefix.
        NoIssuer = -8, charged, "此卡无对应发卡行", "This card has no corresponding issuing bank";
        /// Not initialised, or dormant.
        CardInactive = -9, charged, "该卡未初始化或睡眠卡", "The card is not initialized or is a dormant card";
        /// Marked as fraudulent, to be retained.
        CardFraud = -10, charged, "作弊卡、吞卡", "Fraudulent card, card swallowed";
        /// Reported lost.
        CardLost = -11, charged, "此卡已挂失", "This card has been reported lost";
        /// Expired.
        CardExpired = -12, charged, "该卡已过期", "This card has expired";
        /// Restricted.
        CardRestricted = -13, charged, "受限制的卡", "Restricted card";
        /// Too many wrong PINs.
        PinLocked = -14, charged, "密码错误次数超限", "Exceeded the limit of incorrect password attempts";
        /// The issuer does not offer this check.
        IssuerUnsupported = -15, charged, "发卡行不支持此交易", "The issuing bank does not support this transaction";
        /// Nobody could answer now. A code and not a 5xx, because the SDKs repeat a 5xx at once.
        Busy = -16, free, "验证中心服务繁忙", "Verification center service busy";
        /// Too many attempts today.
        AttemptsExceeded = -17, free, "验证次数超限，请次日重试",
            "Exceeded the limit of verification attempts, please try again the next day";
    }
}

result_codes! {
    /// A result code of `bankcard/check-1e`.
    CardInformationCode {
        /// The issuer is known.
        Found = 0, charged, "查询成功", "Query successful";
        /// No issuer is known.
        NotFound = -1, charged, "未查到信息", "No information found";
        /// Nobody could answer now.
        Busy = -2, free, "验证中心服务繁忙", "Verification center service busy";
        /// There is no such card.
        CardAbsent = -3, free, "银行卡不存在", "Bank card does not exist";
    }
}

result_codes! {
    /// A result code of `idcard/check-2e`.
    IdCardCode {
        /// Name and identity number belong together.
        Consistent = 0, charged, "姓名和身份证号一致", "Name and ID card number are consistent";
        /// They do not.
        Inconsistent = -1, charged, "姓名和身份证号不一致", "Name and ID card number are inconsistent";
        /// The identity number is not one.
        IdInvalid = -2, free, "非法身份证号（长度、校验位等不正确）",
            "Illegal ID card number (length, check digit, etc. are incorrect)";
        /// The name is not a name.
        NameInvalid = -3, free, "非法姓名（长度、格式等不正确）", "Illegal name (length, format, etc. are incorrect)";
        /// The source failed.
        SourceError = -4, free, "证件库服务异常", "Document database service exception";
        /// The source knows nobody with this number.
        NoRecord = -5, free, "证件库中无此身份证记录", "No record of this ID card in the document database";
        /// The source is being upgraded.
        Upgrading = -6, free, "权威比对系统升级中，请稍后再试",
            "The authoritative comparison system is being upgraded, please try again later";
        /// Too many attempts today.
        AttemptsExceeded = -7, free, "认证次数超过当日限制", "The number of authentications has exceeded the daily limit.";
    }
}

result_codes! {
    /// A result code of `phone/check-2e` and `phone/check-3e`, whose guide repeats the other's table.
    PhoneCode {
        /// The elements belong together.
        Consistent = 0, charged, "验证结果一致", "Verification result is consistent";
        /// They do not.
        Inconsistent = 1, charged, "验证结果不一致", "Verification result is inconsistent";
        /// Nobody is known with this number.
        NoRecord = -1, free, "查无记录", "No record found";
        /// The source failed for a reason nobody knows.
        EngineUnknown = -2, free, "引擎未知错误", "Unknown engine error";
        /// The source is not at work.
        EngineFailed = -3, free, "引擎服务异常", "Engine service exception";
        /// The name is not a name.
        NameInvalid = -4, free, "姓名校验不通过", "Name verification failed";
        /// The phone number is not one.
        PhoneInvalid = -5, free, "手机号码不合法", "Mobile number is invalid";
        /// Too many attempts today.
        AttemptsExceeded = -6, free, "认证次数超过当日限制，请次日重试",
            "Authentication attempts exceeded the daily limit, please try again the next day";
    }
}
