// Envelopes by the steps of Tencent's Node helper, with nothing but Node's own crypto.

import { constants, createCipheriv, createHash, publicEncrypt, randomBytes } from "node:crypto";

const base64 = (bytes) => Buffer.from(bytes).toString("base64");

/** AES-256-CBC elements, RSA PKCS#1 v1.5 for the key. */
export function aes(keys, elements, names) {
  const key = randomBytes(32);
  const iv = randomBytes(16);
  const seal = (text) => {
    const cipher = createCipheriv("aes-256-cbc", key, iv);
    return base64(Buffer.concat([cipher.update(text, "utf8"), cipher.final()]));
  };
  // As the helper does it: the PEM text is wrapped in base64 once more.
  const pem = Buffer.from(keys.rsa.node, "base64").toString();
  const blob = publicEncrypt({ key: pem, padding: constants.RSA_PKCS1_PADDING }, key);
  return {
    ...elements,
    ...Object.fromEntries(names.map((name) => [name, seal(elements[name])])),
    Encryption: { EncryptList: names, CiphertextBlob: base64(blob), Iv: base64(iv), Algorithm: "AES-256-CBC", TagList: [] },
  };
}

/** SM4-GCM elements, SM2 in raw C1C3C2 for the key. */
export function sm4(keys, elements, names) {
  const key = randomBytes(16);
  const nonce = randomBytes(12);
  const sealed = names.map((name) => gcm(key, nonce, Buffer.from(elements[name])));
  const pem = Buffer.from(keys.sm2.node, "base64").toString();
  const spki = Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ""), "base64");
  return {
    ...elements,
    ...Object.fromEntries(names.map((name, at) => [name, base64(sealed[at].text)])),
    Encryption: {
      EncryptList: names,
      CiphertextBlob: base64(sm2(spki.subarray(26), key)),
      Iv: base64(nonce),
      Algorithm: "SM4-GCM",
      TagList: sealed.map(({ tag }) => base64(tag)),
    },
  };
}

// Node's OpenSSL 3.0 has SM4 in counter mode, not in GCM: the tag is computed here (NIST SP 800-38D).
function gcm(key, nonce, text) {
  const counter = (n) => Buffer.concat([nonce, Buffer.from([0, 0, 0, n])]);
  const ctr = (start, bytes) => {
    const cipher = createCipheriv("sm4-ctr", key, start);
    return Buffer.concat([cipher.update(bytes), cipher.final()]);
  };
  const hashKey = BigInt(`0x${ctr(Buffer.alloc(16), Buffer.alloc(16)).toString("hex")}`);
  const sealed = ctr(counter(2), text);
  const lengths = Buffer.alloc(16);
  lengths.writeBigUInt64BE(BigInt(sealed.length * 8), 8);
  const padded = Buffer.concat([sealed, Buffer.alloc((16 - (sealed.length % 16)) % 16), lengths]);
  let sum = 0n;
  for (let at = 0; at < padded.length; at += 16) {
    sum = multiplied(sum ^ BigInt(`0x${padded.subarray(at, at + 16).toString("hex")}`), hashKey);
  }
  const tag = ctr(counter(1), Buffer.from(sum.toString(16).padStart(32, "0"), "hex"));
  return { text: sealed, tag };
}

function multiplied(x, y) {
  let z = 0n;
  for (let bit = 127n; bit >= 0n; bit--) {
    if ((x >> bit) & 1n) z ^= y;
    y = y & 1n ? (y >> 1n) ^ (0xe1n << 120n) : y >> 1n;
  }
  return z;
}

// The curve SM2 (GB/T 32918.5).
const P = 0xfffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffffn;
const A = P - 3n;
const N = 0xfffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123n;
const G = [
  0x32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7n,
  0xbc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0n,
];

const mod = (a) => ((a % P) + P) % P;
const bytes32 = (n) => Buffer.from(n.toString(16).padStart(64, "0"), "hex");
const sm3 = (...parts) => createHash("sm3").update(Buffer.concat(parts)).digest();

function sm2(point, message) {
  const to = [BigInt(`0x${point.subarray(1, 33).toString("hex")}`), BigInt(`0x${point.subarray(33).toString("hex")}`)];
  const k = (BigInt(`0x${randomBytes(40).toString("hex")}`) % (N - 1n)) + 1n;
  const [x1, y1] = times(k, G).map(bytes32);
  const [x2, y2] = times(k, to).map(bytes32);
  const mask = sm3(x2, y2, Buffer.from([0, 0, 0, 1]));
  const c2 = message.map((byte, at) => byte ^ mask[at]);
  return Buffer.concat([Buffer.from([4]), x1, y1, sm3(x2, message, y2), c2]);
}

/** k times a point, in Jacobian coordinates. */
function times(k, [x, y]) {
  let sum = null;
  for (const bit of k.toString(2)) {
    if (sum) sum = doubled(sum);
    if (bit === "1") sum = sum ? added(sum, x, y) : [x, y, 1n];
  }
  const inverse = power(sum[2], P - 2n);
  const square = mod(inverse * inverse);
  return [mod(sum[0] * square), mod(sum[1] * square * inverse)];
}

function doubled([x, y, z]) {
  const yy = mod(y * y);
  const s = mod(4n * x * yy);
  const zz = mod(z * z);
  const m = mod(3n * x * x + A * zz * zz);
  const x3 = mod(m * m - 2n * s);
  return [x3, mod(m * (s - x3) - 8n * yy * yy), mod(2n * y * z)];
}

/** With a point whose third coordinate is 1; never the same or the opposite one here. */
function added([x1, y1, z1], x2, y2) {
  const zz = mod(z1 * z1);
  const h = mod(x2 * zz - x1);
  const r = mod(y2 * zz * z1 - y1);
  const hh = mod(h * h);
  const v = mod(x1 * hh);
  const x3 = mod(r * r - h * hh - 2n * v);
  return [x3, mod(r * (v - x3) - y1 * h * hh), mod(z1 * h)];
}

function power(base, exponent) {
  let result = 1n;
  for (; exponent; exponent >>= 1n, base = mod(base * base)) {
    if (exponent & 1n) result = mod(result * base);
  }
  return result;
}
