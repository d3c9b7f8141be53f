-- What tenants say of their own traffic: JSON lists of keyword rules, labelled samples and virtual models.
CREATE TABLE tenant_routing (
  tenant TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  rules TEXT NOT NULL,
  samples TEXT NOT NULL,
  models TEXT NOT NULL,
  updated_at INTEGER NOT NULL
);
