-- The health of GatewayFleets, ApiRoutes, RatePolicies, AccessPolicies and Consumers, for Argo CD: see README.md beside the chart.
-- Healthy: every proxy runs what the object says, and of a fleet enough serve. Degraded: its status says what is wrong. Progressing: on its way.
local health = {status = "Progressing", message = "waiting for the operator"}

local status = obj.status
if status == nil or status.conditions == nil then
  return health
end

local found = {}
for _, condition in ipairs(status.conditions) do
  local observed = condition.observedGeneration
  if observed ~= nil and obj.metadata.generation ~= nil and observed < obj.metadata.generation then
    return health
  end
  found[condition.type] = condition
end

-- What the object says itself, then what it refers to, then what came of it.
for _, name in ipairs({"Accepted", "ResolvedRefs", "Programmed"}) do
  local condition = found[name]
  if condition ~= nil and condition.status ~= "True" then
    health.message = condition.reason .. ": " .. condition.message
    if condition.status == "False" and condition.reason ~= "Pending" then
      health.status = "Degraded"
    end
    return health
  end
end

-- Of a fleet: whether enough proxies serve. Some may be starting, or draining: this is not for ever.
local ready = found["Ready"]
if ready ~= nil and ready.status ~= "True" then
  health.message = ready.reason .. ": " .. ready.message
  return health
end

if found["Programmed"] ~= nil then
  health.status = "Healthy"
  health.message = found["Programmed"].message
end
return health
