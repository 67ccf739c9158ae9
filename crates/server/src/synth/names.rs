//! Names as they are common: the hundred surnames most people have, two or one more characters; some
//! with a dot, some with characters that old systems cannot write, some in Latin letters.

const SURNAMES: &str = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤";
const DOUBLE_SURNAMES: [&str; 6] = ["欧阳", "上官", "司马", "诸葛", "皇甫", "尉迟"];
const GIVEN: &str = "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂文辉玲志建国华红梅晓东海波宁燕春雪峰云飞鹏宇浩然子涵欣怡梓轩诗雨佳琪思远嘉俊泽雅婷慧琳倩颖莹洁璐瑶博睿晨阳天佑家豪一鸣立新永康德福长生玉珍淑贞素琴凤莲秋菊冬生";
/// Characters of the extensions, which many systems of banks could not write for years.
const RARE: &str = "𠅤䶮㛃𬭚𫖯𬀩㑇䜣𪻐𬍛";
const DOTTED: [&str; 16] = [
    "买买提",
    "艾力",
    "阿依古丽",
    "吐尔逊",
    "古丽娜尔",
    "买合木提",
    "努尔兰",
    "阿卜杜拉",
    "热依汗",
    "伊力哈木",
    "扎西",
    "卓玛",
    "才让",
    "达瓦",
    "迪丽热巴",
    "哈斯木",
];
const LATIN: [&str; 12] = [
    "WEI", "XIAOBAO", "MARIA", "JOHN", "SMITH", "NGUYEN", "ANNA", "O'NEIL", "KIM", "TANAKA", "PETROV", "LEE",
];

/// A name drawn by that number.
pub fn name(drawn: u64) -> String {
    let pick = |from: u32, of: usize| (drawn >> from) as usize % of;
    let han = |text: &str, at: usize| text.chars().nth(at % text.chars().count()).unwrap_or('明');
    let of_a_thousand = drawn % 1000;
    match of_a_thousand {
        0..12 => format!("{}·{}", DOTTED[pick(10, DOTTED.len())], DOTTED[pick(20, DOTTED.len())]),
        12..16 => format!("{} {}", LATIN[pick(10, LATIN.len())], LATIN[pick(20, LATIN.len())]),
        16..20 => format!(
            "{}{}{}",
            han(SURNAMES, pick(10, 100)),
            han(RARE, pick(20, 10)),
            han(GIVEN, pick(30, 1 << 20))
        ),
        20..24 => format!("{}{}", DOUBLE_SURNAMES[pick(10, 6)], han(GIVEN, pick(30, 1 << 20))),
        _ => {
            // Of two draws the earlier one: the first surnames are by far the most common.
            let surname = pick(10, 1000).min(pick(24, 1000)) / 10;
            let mut name = String::from(han(SURNAMES, surname));
            name.push(han(GIVEN, pick(34, 1 << 12)));
            if of_a_thousand < 850 {
                name.push(han(GIVEN, pick(46, 1 << 12)));
            }
            name
        }
    }
}
