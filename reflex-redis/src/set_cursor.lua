-- Stores a cursor unless it would not move forward, in one step.
--
-- KEYS[1]: the key. ARGV[1]: the cursor. ARGV[2]: '1' if entry ids have an order. ARGV[3]: a stored text that may be
-- replaced. Answers false when the cursor is stored, otherwise the stored text, for the caller to judge.

-- Compares digits as text: Lua's numbers are exact only up to 2^53.
local function larger(a, b)
    if #a ~= #b then return #a > #b end
    return a > b
end

local function canonical(digits, max)
    return (digits == '0' or string.sub(digits, 1, 1) ~= '0') and not larger(digits, max)
end

-- The sign and the digits of a text that is how a 64-bit integer prints.
local function integer(text)
    local sign, digits = string.match(text, '^(%-?)(%d+)$')
    if not digits or text == '-0' then return nil end
    local max = sign == '-' and '9223372036854775808' or '9223372036854775807'
    if canonical(digits, max) then return sign, digits end
end

-- The two numbers of a text that is how an entry id prints.
local function entry_id(text)
    local time, sequence = string.match(text, '^(%d+)%-(%d+)$')
    local max = '18446744073709551615'
    if time and canonical(time, max) and canonical(sequence, max) then return time, sequence end
end

-- Whether `new` is a later position than `stored`; nil if they have no order.
local function ahead(new, stored)
    local new_sign, new_digits = integer(new)
    local stored_sign, stored_digits = integer(stored)
    if new_sign and stored_sign then
        if new_sign ~= stored_sign then return new_sign == '' end
        if new_sign == '' then return larger(new_digits, stored_digits) end
        return larger(stored_digits, new_digits)
    end
    if ARGV[2] ~= '1' then return nil end
    local new_time, new_sequence = entry_id(new)
    local stored_time, stored_sequence = entry_id(stored)
    if new_time and stored_time then
        if new_time ~= stored_time then return larger(new_time, stored_time) end
        return larger(new_sequence, stored_sequence)
    end
end

-- Whether a text is certainly a cursor; others need a closer look.
local function is_plain(text)
    return #text <= 1024 and string.find(text, '^[!-~]+$')
end

local stored = redis.call('GET', KEYS[1])
if stored and stored ~= ARGV[3] then
    local forward = ahead(ARGV[1], stored)
    if forward == false or (forward == nil and not is_plain(stored)) then return stored end
end
redis.call('SET', KEYS[1], ARGV[1])
return false
