BEGIN TRANSACTION;
CREATE TABLE edgesam_store_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT edgesam_store_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "edgesam_store_version" VALUES('1');
CREATE TABLE launches (
	number INTEGER NOT NULL, 
	id VARCHAR(64) NOT NULL, 
	run_id VARCHAR(32) NOT NULL, 
	round INTEGER NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	started TEXT NOT NULL, 
	ended TEXT NOT NULL, 
	error TEXT, 
	case_id TEXT NOT NULL, 
	format TEXT NOT NULL, 
	precision TEXT NOT NULL, 
	runtime TEXT NOT NULL, 
	delegate TEXT, 
	threads INTEGER, 
	sha256 TEXT NOT NULL, 
	bytes BIGINT, 
	accuracy TEXT NOT NULL, 
	device_key TEXT NOT NULL, 
	device_kind VARCHAR(16) NOT NULL, 
	device_info TEXT NOT NULL, 
	hello TEXT NOT NULL, 
	"check" TEXT, 
	result TEXT, 
	PRIMARY KEY (number), 
	UNIQUE (id), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "launches" VALUES(1,'22222222222222222222222222222222','11111111111111111111111111111111',0,'complete','2026-11-25T16:00:01Z','2026-11-25T16:00:21Z',NULL,'tflite-fp16','tflite','fp16','tflite','xnnpack',4,'["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]',19000000,'{}','adb:R58M','android','{"model":"Pixel","cores":8}','{"harness":{"name":"test"}}','{"passed":true}','{"applied":"xnnpack"}');
INSERT INTO "launches" VALUES(2,'33333333333333333333333333333333','11111111111111111111111111111111',1,'failed','2026-11-25T16:00:01Z','2026-11-25T16:00:21Z','the device was lost','tflite-fp16','tflite','fp16','tflite','xnnpack',4,'["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]',19000000,'{}','adb:R58M','android','{"model":"Pixel","cores":8}','{"harness":{"name":"test"}}',NULL,NULL);
CREATE TABLE runs (
	id VARCHAR(32) NOT NULL, 
	created TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	model TEXT NOT NULL, 
	weights_sha256 TEXT NOT NULL, 
	trained BOOLEAN NOT NULL, 
	package_sha256 TEXT NOT NULL, 
	settings TEXT NOT NULL, 
	tools TEXT NOT NULL, 
	owner_host TEXT, 
	owner_pid BIGINT, 
	owner_started FLOAT, 
	seen BIGINT, 
	PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES('11111111111111111111111111111111','2026-11-25T16:00:00Z','complete','edge-sam-open','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',1,'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','{"launches":5,"seconds":12.5}','{"edgesam-mobile":"1.0"}','desk',4711,1764086400.25,1764086460);
CREATE TABLE samples (
	launch INTEGER NOT NULL, 
	seq BIGINT NOT NULL, 
	stage TEXT NOT NULL, 
	round BIGINT NOT NULL, 
	ns BIGINT NOT NULL, 
	at_ns BIGINT NOT NULL, 
	cpu_ns BIGINT, 
	PRIMARY KEY (launch, seq), 
	FOREIGN KEY(launch) REFERENCES launches (number) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "samples" VALUES(1,0,'pre',0,1000000,1000000000000000,900000);
INSERT INTO "samples" VALUES(1,1,'encode',0,1000001,1000000000000001,900001);
INSERT INTO "samples" VALUES(1,2,'decode',0,1000002,1000000000000002,900002);
INSERT INTO "samples" VALUES(1,3,'post',0,1000003,1000000000000003,900003);
INSERT INTO "samples" VALUES(1,4,'frame',0,1000004,1000000000000004,900004);
INSERT INTO "samples" VALUES(1,5,'pre',1,1000005,1000000000000005,900005);
INSERT INTO "samples" VALUES(1,6,'encode',1,1000006,1000000000000006,900006);
INSERT INTO "samples" VALUES(1,7,'decode',1,1000007,1000000000000007,900007);
INSERT INTO "samples" VALUES(1,8,'post',1,1000008,1000000000000008,900008);
INSERT INTO "samples" VALUES(1,9,'frame',1,1000009,1000000000000009,900009);
CREATE TABLE states (
	launch INTEGER NOT NULL, 
	seq BIGINT NOT NULL, 
	at_ns BIGINT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (launch, seq), 
	FOREIGN KEY(launch) REFERENCES launches (number) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "states" VALUES(1,10,1000000000000000,'{"thermal":"nominal","level":0.5}');
INSERT INTO "states" VALUES(1,11,1000000000000001,'{"thermal":"nominal","level":0.5}');
INSERT INTO "states" VALUES(2,5,1000000000000000,'{"thermal":"nominal","level":0.5}');
INSERT INTO "states" VALUES(2,6,1000000000000001,'{"thermal":"nominal","level":0.5}');
CREATE TABLE tags (
	name VARCHAR(64) NOT NULL, 
	run_id VARCHAR(32) NOT NULL, 
	position INTEGER NOT NULL, 
	PRIMARY KEY (name), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "tags" VALUES('release-1.0','11111111111111111111111111111111',0);
INSERT INTO "tags" VALUES('first','11111111111111111111111111111111',1);
CREATE INDEX ix_runs_created ON runs (created);
CREATE INDEX ix_tags_run_id ON tags (run_id);
CREATE INDEX ix_launches_case_id ON launches (case_id);
CREATE INDEX ix_launches_run_id ON launches (run_id);
COMMIT;
