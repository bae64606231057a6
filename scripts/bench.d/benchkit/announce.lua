-- Announces of a population, in the order of its file, again and again.
--
-- Arguments: file, position to start at, bytes that totals grow by with each request, and for a
-- load at a pace the milliseconds that a connection rests before a request, on average.
-- The file has records of 512 bytes: three 16-bit numbers (the length of the request,
-- and where its two running totals of 12 digits are), then the request itself.
-- Requests are kept outside of Lua's heap, changed in place and taken in batches, by a loop
-- that LuaJIT compiles: done one by one they cost wrk more than a reply costs the server.

local ffi = require("ffi")

ffi.cdef([[
    typedef struct {
        uint16_t length, first, second;
        char text[506];
    } record;
]])

local DIGITS, BATCH = 12, 256

local records, count
local position, step
local batch, taken = {}, BATCH

function init(args)
    position, step = tonumber(args[2]), tonumber(args[3])
    local file = assert(io.open(args[1], "rb"))
    local text = file:read("*a")
    file:close()
    count = #text / ffi.sizeof("record")
    records = ffi.new("record[?]", count)
    ffi.copy(records, text, #text)
    local rest = tonumber(args[4])
    if rest then
        -- Random, so that connections don't march in step.
        math.randomseed(position)
        function delay()
            return math.random(0, 2 * rest)
        end
    end
end

local function fill_batch()
    local totals = string.format("%012d", position * step)
    for number = 1, BATCH do
        local record = records[(position + number) % count]
        ffi.copy(record.text + record.first, totals, DIGITS)
        ffi.copy(record.text + record.second, totals, DIGITS)
        batch[number] = ffi.string(record.text, record.length)
    end
    position = position + BATCH
    taken = 0
end

function request()
    if taken == BATCH then
        fill_batch()
    end
    taken = taken + 1
    return batch[taken]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "p999_ms": %.3f, "errors": '
            .. '{"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3,
        errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
