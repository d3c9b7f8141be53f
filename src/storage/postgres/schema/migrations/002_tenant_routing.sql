-- What tenants say of their own traffic: JSON lists of keyword rules, labelled samples and virtual models.
CREATE TABLE tenant_routing (
  tenant text COLLATE "C" PRIMARY KEY,
  version bigint NOT NULL,
  rules text NOT NULL,
  samples text NOT NULL,
  models text NOT NULL,
  updated_at bigint NOT NULL
);
