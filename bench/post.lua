-- wrk ... -- BODY_FILE SEED|same [Name: value]...
-- With a seed every request has a body of its own: the twelve signs @ in it become a number.
local mark = "@@@@@@@@@@@@"

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer sk-bench"
  for i = 3, #args do
    local name, value = args[i]:match("^([^:]+): *(.*)$")
    wrk.headers[name] = value
  end
  if args[2] ~= "same" then
    local whole = wrk.format()
    local at = assert(whole:find(mark, 1, true))
    local before, after = whole:sub(1, at - 1), whole:sub(at + #mark)
    local number = tonumber(args[2])
    function request()
      number = number + 1
      return before .. string.format("%012d", number) .. after
    end
  end
end
