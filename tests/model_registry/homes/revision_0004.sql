BEGIN TRANSACTION;
CREATE TABLE adapters (
	id INTEGER NOT NULL, 
	base_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	version_id INTEGER NOT NULL, 
	CONSTRAINT pk_adapters PRIMARY KEY (id), 
	CONSTRAINT fk_adapters_base_id FOREIGN KEY(base_id) REFERENCES models (id) ON DELETE CASCADE, 
	CONSTRAINT fk_adapters_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE, 
	CONSTRAINT uq_adapters_base_id_name UNIQUE (base_id, name)
);
INSERT INTO "adapters" VALUES(1,1,'support',2);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE aliases (
	id INTEGER NOT NULL, 
	model_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	version_id INTEGER NOT NULL, 
	weight FLOAT NOT NULL, 
	CONSTRAINT pk_aliases PRIMARY KEY (id), 
	CONSTRAINT fk_aliases_model_id FOREIGN KEY(model_id) REFERENCES models (id) ON DELETE CASCADE, 
	CONSTRAINT fk_aliases_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE, 
	CONSTRAINT uq_aliases_model_id_name UNIQUE (model_id, name)
);
INSERT INTO "aliases" VALUES(1,1,'live',1,1.0);
INSERT INTO "aliases" VALUES(2,2,'live',2,1.0);
CREATE TABLE api_keys (
	id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	scopes JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	revoked_at DATETIME, 
	CONSTRAINT pk_api_keys PRIMARY KEY (id), 
	CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);
INSERT INTO "api_keys" VALUES('key-6d1424c7c600','app','5ba138536c80ff069677d188fa4d3d9a30ad6bc4b3844bb02c8d92910fdabce7','["inference", "jobs"]','2026-11-30 21:53:41.308293',NULL,NULL);
INSERT INTO "api_keys" VALUES('key-7b9e51c96bb0','old','32c279e183a69714c8f3e386aa8ff3a30bc85b79fb9bc261bab2453ee733ac4c','["admin"]','2026-11-30 21:53:41.469619',NULL,'2026-11-30 21:53:41.495235');
CREATE TABLE artifacts (
	id INTEGER NOT NULL, 
	variant_id INTEGER NOT NULL, 
	path VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	size_bytes INTEGER NOT NULL, 
	CONSTRAINT pk_artifacts PRIMARY KEY (id), 
	CONSTRAINT fk_artifacts_variant_id FOREIGN KEY(variant_id) REFERENCES variants (id) ON DELETE CASCADE, 
	CONSTRAINT uq_artifacts_variant_id_path UNIQUE (variant_id, path)
);
INSERT INTO "artifacts" VALUES(1,1,'model.onnx','9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c',7);
INSERT INTO "artifacts" VALUES(2,2,'adapter_model.safetensors','ae1eae1d76e5b7c865c4122ce366a08025842566d2d96c75cc13e6353a73db0d',7);
CREATE TABLE change_counts (
	subject VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	CONSTRAINT pk_change_counts PRIMARY KEY (subject)
);
INSERT INTO "change_counts" VALUES('models',3);
INSERT INTO "change_counts" VALUES('keys',3);
CREATE TABLE evaluations (
	id INTEGER NOT NULL, 
	version VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	job VARCHAR, 
	created_at DATETIME NOT NULL, 
	metrics JSON NOT NULL, 
	details JSON NOT NULL, 
	CONSTRAINT pk_evaluations PRIMARY KEY (id)
);
INSERT INTO "evaluations" VALUES(1,'tiny:1','evaluate',NULL,'2026-11-30 21:53:41.691586','{"f1": 0.5}','{}');
CREATE TABLE files (
	id VARCHAR NOT NULL, 
	purpose VARCHAR NOT NULL, 
	filename VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	size_bytes INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, owner VARCHAR, 
	CONSTRAINT pk_files PRIMARY KEY (id)
);
INSERT INTO "files" VALUES('file-fce778196701250621ba5cd5','fine-tune','train.jsonl','ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356',3,'2026-11-30 21:53:41.632652',NULL,'key-6d1424c7c600');
CREATE TABLE job_events (
	job_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	type VARCHAR NOT NULL, 
	level VARCHAR NOT NULL, 
	message VARCHAR NOT NULL, 
	data JSON NOT NULL, 
	CONSTRAINT pk_job_events PRIMARY KEY (job_id, number), 
	CONSTRAINT fk_job_events_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "job_events" VALUES('job-0123456789ab',1,'2026-11-01 00:00:00.000000','status','info','','{}');
CREATE TABLE jobs (
	id VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	params JSON NOT NULL, 
	needs JSON NOT NULL, 
	pipeline VARCHAR, 
	metadata JSON NOT NULL, 
	attempt INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	ended_at DATETIME, 
	progress JSON NOT NULL, 
	"plan" JSON, 
	outcome JSON, 
	failure JSON, owner VARCHAR, 
	CONSTRAINT pk_jobs PRIMARY KEY (id)
);
INSERT INTO "jobs" VALUES('job-0123456789ab','finetune','succeeded','{"model": "tiny:1"}','[]',NULL,'{}',0,'2026-11-01 00:00:00.000000',NULL,NULL,'{"stage": "", "step": 0, "total": null, "unit": "steps", "rate": null, "time_left_s": null, "metrics": {}}','null','{"version": "tuned:1", "metrics": {"loss": 0.5}, "files": [], "details": {}}','null','key-6d1424c7c600');
CREATE TABLE models (
	id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	next_number INTEGER NOT NULL, 
	CONSTRAINT pk_models PRIMARY KEY (id), 
	CONSTRAINT uq_models_name UNIQUE (name)
);
INSERT INTO "models" VALUES(1,'tiny','2026-11-30 21:53:41.126202',2);
INSERT INTO "models" VALUES(2,'tuned','2026-11-30 21:53:41.204059',2);
CREATE TABLE variants (
	id INTEGER NOT NULL, 
	version_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	precision VARCHAR NOT NULL, 
	provider_family VARCHAR NOT NULL, 
	CONSTRAINT pk_variants PRIMARY KEY (id), 
	CONSTRAINT fk_variants_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE, 
	CONSTRAINT uq_variants_version_id_name UNIQUE (version_id, name)
);
INSERT INTO "variants" VALUES(1,1,'cpu-int8','int8','cpu');
INSERT INTO "variants" VALUES(2,2,'adapter-fp32','fp32','adapter');
CREATE TABLE versions (
	id INTEGER NOT NULL, 
	model_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	digest VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	manifest JSON NOT NULL, 
	CONSTRAINT pk_versions PRIMARY KEY (id), 
	CONSTRAINT fk_versions_model_id FOREIGN KEY(model_id) REFERENCES models (id) ON DELETE CASCADE, 
	CONSTRAINT uq_versions_model_id_number UNIQUE (model_id, number), 
	CONSTRAINT uq_versions_model_id_digest UNIQUE (model_id, digest)
);
INSERT INTO "versions" VALUES(1,1,1,'7f4132cff82178b2d6afdbdc3fd0f1962e0faee21e0c591a877fbb2bab763fab','2026-11-30 21:53:41.126202','{"source": "file:///tiny", "importer": "test", "architecture": "llama", "context_length": 64, "licence": "MIT", "source_sha256": null, "parent": null, "data_sha256": null, "parameters": {}, "metrics": {}, "library_versions": {}, "warnings": []}');
INSERT INTO "versions" VALUES(2,2,1,'73d271ce82117cb7532b7b2ba27d9bb1b0275bce14686dfccbd3dc673f3a26d1','2026-11-30 21:53:41.204059','{"source": "job:job-0123456789ab", "importer": "finetune", "architecture": "llama", "context_length": 64, "licence": "MIT", "source_sha256": null, "parent": "tiny:1", "data_sha256": null, "parameters": {}, "metrics": {}, "library_versions": {}, "warnings": []}');
CREATE INDEX ix_artifacts_sha256 ON artifacts (sha256);
CREATE INDEX ix_jobs_status ON jobs (status);
CREATE INDEX ix_evaluations_version ON evaluations (version);
COMMIT;
