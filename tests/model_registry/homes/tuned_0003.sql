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
INSERT INTO "alembic_version" VALUES('0003');
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
INSERT INTO "aliases" VALUES(3,3,'live',3,1.0);
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
INSERT INTO "artifacts" VALUES(2,2,'weights','87bb47b5a0423d8db9689acc2b2e8fcedf3d61b6485f0d3a1bd8053322a29822',11);
INSERT INTO "artifacts" VALUES(3,3,'weights','1fec80be4cfcf3ee4d9d3137e6cd4e81efc8610b8fa4a42d51b77a4e98bdf646',18);
INSERT INTO "artifacts" VALUES(4,4,'weights','4d77dba3d200e06eb2d5d921e7fc037402a622878e94e0db830ba338ceabd584',15);
INSERT INTO "artifacts" VALUES(5,5,'weights','a10ae19e1bc0c1b098f2c885491f926026f5558ba051c69b6c117b4a85b3dddd',13);
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
INSERT INTO "evaluations" VALUES(1,'tiny:1','evaluate',NULL,'2026-11-30 18:09:12.551971','{"f1": 0.5}','{}');
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
INSERT INTO "files" VALUES('file-06d787fd4cde7ed679d3aee6','fine-tune','train.jsonl','ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356',3,'2026-11-30 18:09:12.493831',NULL,NULL);
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
INSERT INTO "jobs" VALUES('job-0123456789ab','finetune','succeeded','{"model": "tiny:1"}','[]',NULL,'{}',0,'2026-11-01 00:00:00.000000',NULL,NULL,'{"stage": "", "step": 0, "total": null, "unit": "steps", "rate": null, "time_left_s": null, "metrics": {}}','null','null','null',NULL);
CREATE TABLE models (
	id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	next_number INTEGER NOT NULL, 
	CONSTRAINT pk_models PRIMARY KEY (id), 
	CONSTRAINT uq_models_name UNIQUE (name)
);
INSERT INTO "models" VALUES(1,'tiny','2026-11-30 18:09:12.454104',2);
INSERT INTO "models" VALUES(2,'tuned','2026-11-30 21:44:07.930138',2);
INSERT INTO "models" VALUES(3,'other','2026-11-30 21:44:08.014616',2);
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
INSERT INTO "variants" VALUES(2,2,'cpu-int8','int8','cpu');
INSERT INTO "variants" VALUES(3,2,'checkpoint-fp32','fp32','checkpoint');
INSERT INTO "variants" VALUES(4,2,'adapter-fp32','fp32','adapter');
INSERT INTO "variants" VALUES(5,3,'cuda-int4','int4','cuda');
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
INSERT INTO "versions" VALUES(1,1,1,'7f4132cff82178b2d6afdbdc3fd0f1962e0faee21e0c591a877fbb2bab763fab','2026-11-30 18:09:12.454104','{"source": "file:///tiny", "importer": "test", "architecture": "llama", "context_length": 64, "licence": "MIT", "source_sha256": null, "parent": null, "data_sha256": null, "parameters": {}, "metrics": {}, "library_versions": {}}');
INSERT INTO "versions" VALUES(2,2,1,'605b69a64a34b82f3e4a96e7420c75f23908eb61f308d797a728350572f71114','2026-11-30 21:44:07.930138','{"source": "job:job-0123456789ab", "importer": "finetune", "architecture": "llama", "context_length": 64, "licence": "unknown", "source_sha256": null, "parent": "tiny:1", "data_sha256": null, "parameters": {"method": "lora"}, "metrics": {}, "library_versions": {}, "warnings": []}');
INSERT INTO "versions" VALUES(3,3,1,'6ad3871ecd5670eec5aa4b04c47c4490bc9abe385f87f6e044b5eb1c4fb27489','2026-11-30 21:44:08.014616','{"source": "foundry://other", "importer": "foundry", "architecture": "phi3", "context_length": 64, "licence": "unknown", "source_sha256": null, "parent": null, "data_sha256": null, "parameters": {"graph": "other"}, "metrics": {}, "library_versions": {}, "warnings": []}');
CREATE INDEX ix_artifacts_sha256 ON artifacts (sha256);
CREATE INDEX ix_jobs_status ON jobs (status);
CREATE INDEX ix_evaluations_version ON evaluations (version);
COMMIT;
