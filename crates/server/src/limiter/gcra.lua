-- Counts one request by GCRA, as a bucket that drains. Returns how much of the limit is used, this request
-- included; one more than the limit when it is refused.
-- KEYS[1]: application and action. ARGV[1]: requests a second, which is the burst as well. ARGV[2]: the time
-- in microseconds; only tests give it, otherwise it is this server's.
-- Whole numbers throughout, in millionths of a request: a microsecond drains ARGV[1] of them.
local limit, now = tonumber(ARGV[1]), tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local level = 0
local before, at = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if before then
  -- Never over the limit, which may have been lowered; a clock that was set back drains nothing.
  local drained = math.max(now - tonumber(at), 0) * limit
  level = math.max(math.min(tonumber(before), limit * 1000000) - drained, 0)
end
level = level + 1000000
if level > limit * 1000000 then
  return limit + 1
end
redis.call('SET', KEYS[1], string.format('%.0f %.0f', level, now), 'PX', 10000)
return math.ceil(level / 1000000)
