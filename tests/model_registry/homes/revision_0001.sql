BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
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
CREATE TABLE models (
	id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	next_number INTEGER NOT NULL, 
	CONSTRAINT pk_models PRIMARY KEY (id), 
	CONSTRAINT uq_models_name UNIQUE (name)
);
INSERT INTO "models" VALUES(1,'tiny','2026-11-30 21:39:02.274049',2);
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
INSERT INTO "versions" VALUES(1,1,1,'7f4132cff82178b2d6afdbdc3fd0f1962e0faee21e0c591a877fbb2bab763fab','2026-11-30 21:39:02.274049','{"source": "file:///tiny", "importer": "test", "architecture": "llama", "context_length": 64, "licence": "MIT", "source_sha256": null, "parent": null, "data_sha256": null, "parameters": {}, "metrics": {}, "library_versions": {}}');
CREATE INDEX ix_artifacts_sha256 ON artifacts (sha256);
COMMIT;
