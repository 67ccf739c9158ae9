// The two Tencent SDKs for Node behind one shape: call(...) gives { result, description, requestId }
// or throws the SDK's own exception.

import { createRequire } from "node:module";
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { requireAll, scenario, skip as noServer } from "./sandbox.mjs";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");
const installed = process.env.CARD4E_NODE_CLIENTS ?? join(root, ".test-env", "node");
export const available = existsSync(join(installed, "node_modules", "tencentcloud-sdk-nodejs"));

/** The reason to skip, or false; where everything must run, nothing is skipped. */
export const skip = noServer
  || (available || requireAll ? false : "the Node SDKs are missing (./test installs them)");

const FOUR = "BankCard4EVerification";

const require = createRequire(join(installed, "package.json"));

/** tencentcloud-sdk-nodejs: TC3 unless told otherwise; signs its host without the port. */
export const domestic = {
  name: "tencentcloud-sdk-nodejs",
  async call(address, elements, options = {}) {
    const { faceid } = require("tencentcloud-sdk-nodejs/tencentcloud/services/faceid");
    const client = new faceid.v20180301.Client({
      credential: credential(options),
      region: "",
      profile: {
        signMethod: options.signMethod,
        language: options.language,
        httpProfile: {
          endpoint: address,
          protocol: options.protocol ?? "http://",
          reqMethod: options.method ?? "POST",
          reqTimeout: 20,
        },
      },
    });
    const reply = await client[options.action ?? FOUR](elements, { headers: options.headers });
    return { result: reply.Result, description: reply.Description, requestId: reply.RequestId, reply };
  },
};

/** tencentcloud-sdk-nodejs-intl-en: v1 HmacSHA256 unless told otherwise, English always; it has no
 *  class for this action, so its generic request. */
export const international = {
  name: "tencentcloud-sdk-nodejs-intl-en",
  call(address, elements, options = {}) {
    const common = "tencentcloud-sdk-nodejs-intl-en/tencentcloud/common";
    const AbstractClient = require(`${common}/abstract_client`);
    const Credential = require(`${common}/credential`);
    const ClientProfile = require(`${common}/profile/client_profile`);
    const HttpProfile = require(`${common}/profile/http_profile`);
    const { secretId, secretKey, token } = credential(options);
    const client = new AbstractClient(
      "faceid.tencentcloudapi.com",
      "2018-03-01",
      new Credential(secretId, secretKey, token),
      "ap-singapore",
      new ClientProfile(
        options.signMethod,
        new HttpProfile(options.protocol ?? "http://", address, options.method ?? "POST", 20, { ...options.headers }),
      ),
    );
    const reply = { deserialize(data) { Object.assign(this, data); } };
    return new Promise((done, failed) => {
      client.request(options.action ?? FOUR, elements, reply, (error) => {
        if (error) failed(error);
        else done({ result: reply.Result, description: reply.Description, requestId: reply.RequestId, reply });
      });
    });
  },
};

function credential({ application, secretId, secretKey, token }) {
  const keys = application ?? scenario.public;
  return {
    secretId: secretId ?? keys.secret_id,
    secretKey: secretKey ?? keys.secret_key,
    token: token === undefined ? keys.token ?? undefined : token ?? undefined,
  };
}
