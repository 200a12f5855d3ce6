-- The authorization request of HAProxy to `grantor guard`, for `http-request lua.grantor_guard`. It needs HAProxy 2.6.
--
-- The action ends the transaction with the guard's answer, or sets txn.grantor_allowed to "yes". Nothing else sets that
-- variable, so that a request is refused if this script fails.

-- Headers of the guard's answer that reach the caller of a refused request.
local refusal_headers = { "www-authenticate", "dpop-nonce", "content-type", "cache-control", "retry-after" }

-- Headers which belong to one connection (RFC 9110 §7.6.1) or to the body, which stays here.
local omitted = {
	["connection"] = true, ["keep-alive"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true,
	["upgrade"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true,
	["x-original-method"] = true, ["x-original-uri"] = true, ["x-original-host"] = true, ["x-original-proto"] = true,
}

-- values returns a header of HAProxy, whose first index is 0, as a sequence.
local function values(header)
	local list = {}
	for i = 0, #header do
		if header[i] ~= nil then
			list[#list + 1] = header[i]
		end
	end
	return list
end

local function refuse(txn, response)
	local headers, body = {}, ""
	for _, name in ipairs(refusal_headers) do
		if response.headers and response.headers[name] then
			headers[name] = values(response.headers[name])
		end
	end
	local status = response.status
	if status == 401 or status == 403 then
		body = response.body or ""
	elseif status == 400 or status == 431 then -- the request is malformed, or its headers are too large for the guard
		status = 400
	else -- the guard is not there, or cannot decide
		status = 503
	end
	txn:done(txn:reply({ status = status, headers = headers, body = body }))
end

local function guard(txn)
	local headers, received = {}, txn.http:req_get_headers()
	for name, header in pairs(received) do
		if not omitted[name] then
			headers[name] = values(header)
		end
	end
	local secure = txn.f:ssl_fc()
	headers["x-original-method"] = { txn.f:method() }
	headers["x-original-uri"] = { txn.f:pathq() }
	headers["x-original-host"] = { txn.f:req_fhdr("host") }
	headers["x-original-proto"] = { (secure == 1 or secure == true) and "https" or "http" }

	local response = core.httpclient():get({ url = txn:get_var("txn.guard"), headers = headers, timeout = 1000 })
	if response == nil or response.status ~= 200 then
		return refuse(txn, response or {})
	end
	for name in pairs(received) do
		if name:find("^x%-grantor%-") or name:find("^x%-original%-") then
			txn.http:req_del_header(name)
		end
	end
	for name, header in pairs(response.headers or {}) do
		if name:find("^x%-grantor%-") then
			txn.http:req_set_header(name, header[0])
		end
	end
	local nonce = response.headers and response.headers["dpop-nonce"]
	if nonce then
		txn:set_var("txn.grantor_nonce", nonce[0])
	end
	txn:set_var("txn.grantor_allowed", "yes")
end

core.register_action("grantor_guard", { "http-req" }, guard)
