/** Keys of every sandbox, for ever. */
export const PUBLIC: Readonly<{ secretId: string; secretKey: string; token: string }>;

export interface Options {
  /** The program; by default CARD4E_BIN, or card4e on the PATH. */
  binary?: string;
  /** More arguments of `card4e sandbox`. */
  args?: string[];
}

/** `beforeAll`, `beforeEach` and `afterAll` of vitest and jest; `before`, `beforeEach` and `after` of node:test. */
export interface Hooks {
  beforeAll?(run: () => Promise<void>): unknown;
  before?(run: () => Promise<void>): unknown;
  beforeEach?(run: () => Promise<void>): unknown;
  afterAll?(run: () => Promise<void> | undefined): unknown;
  after?(run: () => Promise<void> | undefined): unknown;
}

export interface Entry {
  number: number;
  at: string;
  request_id: string;
  wire: "tencent" | "acedata" | "native";
  action: string;
  application: string | null;
  elements: Record<string, string | null> | null;
  outcome: string | null;
  result: string | null;
  error: string | null;
  decision: string | null;
  hint: string | null;
  charged: string;
  replayed: boolean;
  status: number;
}

export interface Account {
  bank_card: string;
  name: string;
  id_number: string;
  phone?: string;
  id_type?: string;
  status?: string;
}

export class Sandbox {
  readonly address: string;
  readonly url: string;
  readonly tencent: {
    credential: { secretId: string; secretKey: string };
    region: string;
    profile: { httpProfile: { endpoint: string; protocol: "http://" } };
  };
  readonly acedata: { url: string; token: string; headers: Record<string, string> };
  readonly environment: Record<string, string>;
  reset(): Promise<void>;
  stop(): Promise<void>;
  answerNext(...outcomes: (string | number)[]): Promise<unknown>;
  fault(effect: Record<string, unknown>, rule?: Record<string, unknown>): Promise<unknown>;
  addAccount(account: Account): Promise<unknown>;
  card(outcome: string, action?: string): Promise<string>;
  shiftClock(seconds: number): Promise<unknown>;
  freezeClock(now?: number): Promise<unknown>;
  journal(): Promise<Entry[]>;
  asked(expected?: Partial<Entry>): Promise<Entry[]>;
  assertAsked(expected?: Partial<Entry>, times?: number): Promise<Entry[]>;
  charges(): Promise<number>;
  control(method: string, what: string, body?: unknown): Promise<any>;
}

export function startSandbox(options?: Options): Promise<Sandbox>;
export function useSandbox(options?: Options & { hooks?: Hooks }): Sandbox;
